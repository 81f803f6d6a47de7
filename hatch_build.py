"""Puts the lessons into the wheel, without their outputs, so that it stays small."""

import json
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class LessonsHook(BuildHookInterface):
    """Adds `notebooks/` to the wheel as `groundup/notebooks/`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the lessons without outputs; an editable installation reads them where they lie."""
        if version == "editable":
            return
        self.folder = tempfile.TemporaryDirectory()
        for path in sorted((Path(self.root) / "notebooks").iterdir()):
            if path.suffix not in {".ipynb", ".json"}:
                continue
            content = json.loads(path.read_text("utf-8"))
            for cell in content["cells"] if path.suffix == ".ipynb" else []:
                if cell["cell_type"] == "code":
                    cell["outputs"], cell["execution_count"] = [], None
            bare = Path(self.folder.name) / path.name
            bare.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")
            build_data["force_include"][str(bare)] = f"groundup/notebooks/{path.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was written."""
        if version != "editable":
            self.folder.cleanup()
