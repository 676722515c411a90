"""Google's Noto emoji with names and keywords from Unicode's CLDR in about seventy languages.

npm's emoji-datasource-google has an image of 64 pixels for each emoji and skin tone; Debian's
unicode-cldr-core has the texts in `annotations/LANGUAGE.xml`. Licences: images Apache-2.0, the
package's data MIT, CLDR the Unicode licence. A tenth of the pairs of gesture and skin tone form the
held-out split "compositions": both words occur in training, the pair does not.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from janusflow.data.collections.entries import COLLECTIONS, Collection, Entry, split_of
from janusflow.data.collections.packages import Package, members

IMAGES = "package/img/google/64/"
ANNOTATIONS = "usr/share/unicode/cldr/common/annotations"  # and annotationsDerived
TONES = {
    "1F3FB": "light skin tone",
    "1F3FC": "medium-light skin tone",
    "1F3FD": "medium skin tone",
    "1F3FE": "medium-dark skin tone",
    "1F3FF": "dark skin tone",
}
PLAIN = "\ufe0f"  # asks for the coloured form; CLDR leaves it out
Words = dict[str, dict[str, list[str]]]  # language -> emoji -> name, then keywords


def read(packages: list[Path], languages: tuple[str, ...]) -> Iterator[Entry]:
    """Returns every emoji of Google's set, followed by its skin tones."""
    table, images = [], {}
    for name, content in members(packages[0]):
        if name == "package/emoji.json":
            table = json.loads(content)
        elif name.startswith(IMAGES):
            images[name.removeprefix(IMAGES)] = content
    words = annotations(packages[1], ("en", *languages))
    for row in table:
        tones = row.get("skin_variations", {})
        for tone, shown in {"": row, **tones}.items():
            if shown["has_img_google"] and shown["image"] in images:
                yield entry(row, tone, shown, images[shown["image"]], words)


def entry(row: dict, tone: str, shown: dict, content: bytes, words: Words) -> Entry:
    """Returns an image with its captions: a row's emoji in one skin tone, or with "" in none."""
    text = "".join(chr(int(code, 16)) for code in shown["unified"].split("-")).replace(PLAIN, "")
    said = {name: known[text] for name, known in words.items() if text in known}
    said.setdefault("en", [fallback(row, tone)])
    split = None
    if (
        tone
        and split_of(row["unified"]) == "train"
        and split_of(f"{row['unified']} {tone}") == "test"
    ):
        split = "compositions"
    return Entry(
        name=shown["image"].removesuffix(".png"),
        concept=row["unified"],
        content=content,
        suffix=".png",
        captions=said,
        origin=f"{IMAGES}{shown['image']}",
        split=split,
    )


def fallback(row: dict, tone: str) -> str:
    """Returns the table's own name of an emoji that CLDR does not list yet."""
    name = (row["name"] or row["short_name"].replace("_", " ")).lower()
    tones = [TONES[part] for part in tone.split("-") if part in TONES]
    return f"{name}: {', '.join(tones)}" if tones else name


def annotations(package: Path, languages: tuple[str, ...]) -> Words:
    """Returns names and keywords by language. Raises ValueError for a language it lacks."""
    found: Words = {}
    for name, content in members(package):
        folder, _, file = name.rpartition("/")
        language = file.removesuffix(".xml")
        if folder.startswith(ANNOTATIONS) and language in languages:
            _take(ElementTree.fromstring(content), found.setdefault(language, {}))
    if missing := [name for name in languages if name not in found]:
        raise ValueError(f"CLDR has no names in {missing[0]!r}; give codes such as de, fr, zh")
    return found


def _take(root: ElementTree.Element, words: dict[str, list[str]]) -> None:
    """Adds an annotation file's rows: the name (type "tts") first, then the other keywords."""
    for row in root.iter("annotation"):
        known = words.setdefault(row.get("cp").replace(PLAIN, ""), [])
        texts = [text.strip() for text in (row.text or "").split("|")]
        if row.get("type") == "tts":
            known[:] = [*texts, *(word for word in known if word not in texts)]
        else:
            known += [word for word in texts if word not in known]


COLLECTIONS["emoji"] = Collection(
    packages=(
        Package(registry="npm", name="emoji-datasource-google", version="16"),
        Package(registry="debian", name="unicode-cldr-core"),
    ),
    licence="images Apache-2.0 (Google, Noto Emoji), table MIT (Cal Henderson), names Unicode",
    read=read,
)
