"""A document to score and its score, as plain data that needs no model to be read."""

from dataclasses import dataclass

NO_LOSS = 1e-4  # nats: below it a relative rise says nothing, and the score is null


@dataclass(frozen=True)
class Text:
    """A document to score: an id of the caller's choice, and the text."""

    doc_id: str
    text: str


@dataclass(frozen=True)
class DocumentScore:
    """The losses of a document in nats per token, over the document's own tokens, and the score they make.

    `window_scores` are those of its windows in order, each made of the window's own losses, and None where these make
    none; the whole is None for a document of one window.
    """

    doc_id: str
    n_tokens: int
    loss_base: float
    loss_reference: float
    window_scores: tuple[float | None, ...] | None = None

    @property
    def score(self) -> float | None:
        """The score `(loss_reference - loss_base) / loss_base`; None where `attention_influence_score` gives none."""
        return attention_influence_score(self.loss_base, self.loss_reference)


def attention_influence_score(loss_base: float, loss_reference: float) -> float | None:
    """The score of arXiv 2505.07293: the relative rise of the loss; None if `loss_base` is below 1e-4 nats."""
    return (loss_reference - loss_base) / loss_base if loss_base >= NO_LOSS else None
