"""What several verbs read from their options."""


def words(text: str) -> tuple[str, ...]:
    """Words with commas or spaces between them."""
    return tuple(word for word in text.replace(",", " ").split() if word)


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers with commas or spaces between them."""
    return tuple(int(word) for word in words(text))
