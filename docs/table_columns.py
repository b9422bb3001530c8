"""A hook of mkdocs: the page of tables says what every column means, from the schemas that the code writes by."""

from typing import Any

from attninf_assets.store.schemas import PARTITIONED_BY, TABLES, description

_PLACE = "<!-- columns of every table -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with the columns of every table where it asks for them."""
    return markdown.replace(_PLACE, columns_of_every_table()) if _PLACE in markdown else markdown


def columns_of_every_table() -> str:
    """A Markdown section for each Delta table: its columns, their types, and what each one means."""
    return "\n".join(_section(name) for name in TABLES)


def _section(table: str) -> str:
    by = " and ".join(f"`{column}`" for column in PARTITIONED_BY[table])
    lines = [f"### {table}", "", f"Partitioned by {by}." if by else "Not partitioned.", ""]
    lines += ["| column | type | null? | meaning |", "|---|---|---|---|"]
    for field in TABLES[table]:
        # Escaped, or Markdown would take `<domain>.<shard>` for HTML and drop it.
        meaning = description(field).replace("<", "&lt;").replace("|", "\\|")
        lines.append(f"| `{field.name}` | `{field.type}` | {'may be' if field.nullable else ''} | {meaning} |")
    return "\n".join([*lines, ""])
