"""Examples are commands that exist, with options that exist; shells complete them."""

import shlex
import subprocess
from pathlib import Path

import pytest
from commands import command, isc_jobs

from isc_jobs.cli import build_parser
from isc_jobs.commands.help import EXAMPLES, commands_of

LINES = [line for lines in EXAMPLES.values() for line in lines if line.startswith("isc-jobs ")]


@pytest.mark.parametrize("line", LINES)
def test_an_example_is_a_right_command_line(line: str) -> None:
    words = shlex.split(line.partition(" > ")[0])
    assert build_parser().parse_args(words[1:]).command


def test_every_command_that_does_something_has_examples_in_its_help() -> None:
    found = {name: parser for name, parser in commands_of(build_parser()) if parser.get_default("command")}
    assert found.keys() == EXAMPLES.keys()
    for name, parser in found.items():
        assert EXAMPLES[name][0] in parser.format_help()


def test_bash_completes_commands_options_and_files(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(isc_jobs("completion", "bash").stdout)
    (tmp_path / "weights.pth").touch()

    def completed(*words: str) -> list[str]:
        line = f"""source {script}
            words() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); "$handler" isc-jobs "${{COMP_WORDS[-1]}}" \
                "${{COMP_WORDS[-2]}}"; }}
            handler=$(complete -p isc-jobs | sed -E 's/.* -F ([^ ]+) .*/\\1/')
            words isc-jobs {shlex.join(words)}; printf '%s\\n' "${{COMPREPLY[@]}}\""""
        said = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True)
        return said.stdout.split()

    assert completed("sta") == ["status"]
    assert "--watch" in completed("status", "--")
    assert "train-v83" not in completed("status", "")
    assert completed("match", "--weights", "wei") == ["weights.pth"]


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_a_script_of_allcommands_of(shell: str) -> None:
    said = subprocess.run(command("completion", shell), capture_output=True, text=True, check=True).stdout
    assert all(name.split()[0] in said for name in EXAMPLES)
