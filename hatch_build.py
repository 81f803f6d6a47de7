"""Puts the lessons into the wheel, without their outputs, so that it stays small."""

import sys
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
        sys.path.insert(0, str(Path(self.root) / "src"))
        from groundup.lessons import write_lessons  # needs nothing but Python

        self.folder = tempfile.TemporaryDirectory()
        for path in write_lessons(Path(self.folder.name)):
            build_data["force_include"][str(path)] = f"groundup/notebooks/{path.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was written."""
        if version != "editable":
            self.folder.cleanup()
