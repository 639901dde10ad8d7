"""What the tables of docs/gates.md do not show, said of the tables themselves."""

import re

_LESS = re.compile(
    r"^\| `(?P<way>[^`]+)` .* \| (?P<gap>[+-][\d.]+) \((?P<low>[+-][\d.]+) to (?P<high>[+-][\d.]+)\) \|"
)
_JOINT = re.compile(
    r"^\| `add` \| [^|]+\| [^|]+\| (?P<value>[\d.]+) \((?P<low>[\d.]+) to (?P<high>[\d.]+)\)"
)
_CONTROL = re.compile(r"^- (random|shuffled|unsteered): joint ([\d.]+) \(([\d.]+) to ([\d.]+)\)")
_SILHOUETTE = re.compile(
    r"^\| \w+ \| (-?[\d.]+) \| (-?[\d.]+) \| (-?[\d.]+) \| [\d.]+ \| [\d.]+ \|$"
)


def reading(text: str) -> str:
    """The page with a section of what did not work, from its own numbers."""
    lines = text.splitlines()
    less = [match for line in lines if (match := _LESS.match(line))]
    clear = sorted(
        {each["way"] for each in less if float(each["low"]) > 0 or float(each["high"]) < 0}
    )
    widths = sorted((float(each["high"]) - float(each["low"])) / 2 for each in less)
    add = next(match for line in lines if (match := _JOINT.match(line)))
    controls = [match.groups() for line in lines if (match := _CONTROL.match(line))][:3]
    overlapping = [name for name, _, _, high in controls if float(high) >= float(add["low"])]
    apart = [
        float(each)
        for line in lines
        if (match := _SILHOUETTE.match(line))
        for each in match.groups()
    ]
    named = ", ".join(f"`{way}`" for way in clear)
    told = [
        "## What did not work",
        "",
        f"- Of {len(less)} comparisons with `add`, "
        + (
            f"those of {named} have an interval without zero."
            if clear
            else "none has an interval without zero."
        )
        + f" Half an interval is {widths[len(widths) // 2]:.2f} wide: smaller differences cannot be seen with so few sentences, and few dev "
        "lines make the choice of layer and strength itself a matter of luck.",
        f"- `add` at its choice has a joint of {add['value']} ({add['low']} to {add['high']}). "
        + (
            f"The intervals of {', '.join(overlapping)} overlap it: so few outputs do not tell it from them."
            if overlapping
            else "No control reaches it."
        ),
    ]
    found = {
        line.split("`")[1]: line.split("|")[2:7]
        for line in reversed(lines)  # the first of several tables is kept
        if line.startswith("| `selective ")
    }
    if found and found.get("selective apart") == found.get("selective all"):
        told.append(
            "- The test of Selective Steering picks every layer, so that `selective apart` and `all` are one edit."
        )
    if apart and max(apart) < 0.1:
        told.append(
            f"- Differences of pairs have no clusters: the largest mean silhouette is {max(apart):.2f}."
        )
    if any(line.startswith("0 latents pass the filter") for line in lines):
        told.append(
            "- No latent of the packaged autoencoders is on in deranged pairs alone: what ESR removes from a model of 70B is not here."
        )
    return text.rstrip() + "\n\n" + "\n".join(told) + "\n"
