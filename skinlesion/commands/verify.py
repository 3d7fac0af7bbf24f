"""`skinlesion verify`: the published tables, recomputed from the predictions tables that are shipped."""

import logging
from pathlib import Path

from skinlesion.config.studies import VerifyConfig

log = logging.getLogger(__name__)


def run(config: VerifyConfig) -> None:
    """Recompute each table of the pages, and name the cells that differ; or write them anew.

    Numbers are compared as they are printed: a difference in the last digit counts.

    Raises:
        SkinlesionError: A page or a predictions table is missing, a table is not on its page, or a cell differs.
    """
    from skinlesion.errors import DataError
    from skinlesion.files import write_text
    from skinlesion.metrics.estimate import BootstrapConfig, Estimates
    from skinlesion.studies.verify.pages import blocks, differences, markdown, replaced
    from skinlesion.studies.verify.tables import read_tables, recompute
    from skinlesion.terminal import track

    root, folder = Path(config.root), Path(config.folder)
    tables = read_tables(Path(config.tables))
    pages = {name: root / name for table in tables.values() for name in table.pages}
    if missing := [str(path) for path in pages.values() if not path.is_file()]:
        raise DataError(f"root={root}: no {', '.join(missing)}; give the folder of the repository's clone")
    texts = {name: path.read_text(encoding="utf-8") for name, path in pages.items()}
    wrong: list[str] = []
    known: dict[tuple[object, ...], Estimates] = {}
    for name, table in track(tables.items(), "recomputing tables", len(tables)):
        headings, *rows = recompute(table, folder, BootstrapConfig.of(config), known=known)
        found = markdown(headings, rows)
        for page in table.pages:
            printed = blocks(texts[page]).get(name)
            if printed is None:
                raise DataError(f"{pages[page]}: no line <!-- table: {name} --> with <!-- end --> after it")
            if config.write:
                texts[page] = replaced(texts[page], {name: found})
            else:
                wrong += [f"{pages[page]}, {name}: {each}" for each in differences(printed, found)]
    if wrong:
        raise DataError("\n".join(wrong))
    for page, path in pages.items() if config.write else ():
        write_text(path, texts[page])
    log.info("%d tables %s", len(tables), "written" if config.write else "agree with their predictions")
