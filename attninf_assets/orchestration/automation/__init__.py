"""What happens without anybody asking: new shards, rescoring, retirement."""
