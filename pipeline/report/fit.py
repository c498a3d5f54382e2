"""Makes the sections fit into a GitHub comment."""

from pipeline.report.sections import Section

# GitHub takes 65,536 characters in a comment (at most 262,144 bytes); the rest is for what a poster adds, such as a watermark.
LIMIT = 64_000


def fit(sections: list[Section], limit: int = LIMIT) -> str:
    """The sections as one Markdown text of at most `limit` characters; what was shortened for it is said at the end."""
    shortened: list[Section] = []
    while len(text := _join(sections, shortened)) > limit:
        able = [each for each in sections if each.level + 1 < len(each.versions)]
        if not able:
            sections = sections[:-1]
            continue
        chosen = max(able, key=lambda each: (each.versions[each.level + 1] != "", each.give_up, len(each.text)))  # to nothing at the very last
        chosen.level += 1
        if chosen not in shortened:
            shortened.append(chosen)
    return text


def _join(sections: list[Section], shortened: list[Section]) -> str:
    parts = [each.text for each in sections]
    if shortened:
        listed = "".join(f"\n- {each.what}: {each.where}" for each in shortened[:10])
        more = f"\n- and {len(shortened) - 10} more of these kinds" if len(shortened) > 10 else ""
        why = "To stay under GitHub's limit this report leaves out, in whole or in part (pages and files are among the job's artifacts):"
        parts.append(f"{why}\n{listed}{more}")
    return "\n\n".join(part for part in parts if part) + "\n"
