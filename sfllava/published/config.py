"""Read an experiment file of the published code (YAML): the values for each of its scripts, with their lines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml.constructor import SafeConstructor

from sfllava.types import SfllavaError

_LARGEST = 1 << 20  # bytes; such a file is one kilobyte
_TAG = "tag:yaml.org,2002:"
_NEEDED = ("SCRIPT", "CONFIG_NAME")
# key -> the default of the shell scripts; None: there is none, or it differs by script
DEFAULTS: dict[str, str | None] = {
    "SCRIPT": None,
    "CONFIG_NAME": None,
    "DATA_DIR": None,  # differs by script
    "GT_QA_DIR": "playground/gt_qa_files",
    "MODEL_PATH": "liuhaotian/llava-v1.6-vicuna-7b",
    "CONV_MODE": None,  # differs by script
    "NUM_FRAMES": "50",
    "TEMPORAL_AGGREGATION": "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4",
    "ROPE_SCALING_FACTOR": "2",
    "IMAGE_ASPECT_RATIO": "resize",
    "INPUT_STRUCTURE": "image_seq",
    "OUTPUT_DIR": "outputs/artifacts",
    "TEMP_DIR": "outputs/eval_save_dir",
    "SAVE_DIR": "outputs/artifacts/logs",
    "CUDA_VISIBLE_DEVICES": "",
}


class ExperimentError(SfllavaError):
    """An experiment file that cannot be run; the message names the file and the line."""


@dataclass(frozen=True)
class Value:
    """A value as the shell scripts see it, and its line in the file; line 0 is a default of the scripts."""

    text: str
    line: int = 0


@dataclass(frozen=True)
class Experiment:
    """An experiment file: its scripts, and for each key one value per script."""

    path: Path
    scripts: tuple[Value, ...]
    values: dict[str, tuple[Value, ...]]

    def value(self, key: str, script: int, default: str = "") -> Value:
        """Return the value of `key` for a script by number, or `default` if nothing sets it."""
        if key in self.values:
            return self.values[key][script]
        return Value(DEFAULTS[key] or default)

    def error(self, line: int, text: str) -> ExperimentError:
        """Return an error that names the file, and the line if there is one."""
        return ExperimentError(f"{self.path}, line {line}: {text}" if line else f"{self.path}: {text}")


def read_experiment(path: str | Path) -> Experiment:
    """Read an experiment file as `safe_load` in the published code does, but strictly.

    Args:
        path: The YAML file.

    Returns:
        Its scripts and values.

    Raises:
        ExperimentError: The file cannot be read, a key is unknown or occurs twice, or a list is not as long as SCRIPT.
    """
    path = Path(path)
    at = Experiment(path, (), {})
    nodes = _mapping(at)
    missing = [key for key in _NEEDED if key not in nodes]
    if missing:
        raise at.error(0, f"needed {', '.join(missing)}; there are {', '.join(nodes) or 'no keys'}")
    scripts = _values(at, "SCRIPT", nodes["SCRIPT"], None)
    values = {key: _values(at, key, node, len(scripts)) for key, node in nodes.items() if key != "SCRIPT"}
    name = nodes["CONFIG_NAME"]
    if isinstance(name, yaml.ScalarNode) and values["CONFIG_NAME"][0].text == "auto":
        values["CONFIG_NAME"] = tuple(Value(path.stem, value.line) for value in values["CONFIG_NAME"])
    return Experiment(path, scripts, values)


def _mapping(at: Experiment) -> dict[str, yaml.Node]:
    """Return the file's keys and their nodes."""
    try:
        data = at.path.read_bytes()
        if len(data) > _LARGEST:
            raise at.error(0, f"needed an experiment file of at most {_LARGEST:,} bytes, got {len(data):,}")
        root = yaml.compose(data.decode("utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise at.error(0, f"cannot read the experiment file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise at.error(0, f"needed UTF-8, got byte {error.object[error.start]:#04x} at {error.start}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise at.error(mark.line + 1 if mark else 0, f"not readable as YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise at.error(0, f"not readable as YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(root, yaml.MappingNode) or root.tag != f"{_TAG}map":
        raise at.error(_line(root) if root else 0, "needed KEY: value lines, got something else")
    nodes: dict[str, yaml.Node] = {}
    for key, node in root.value:
        name = key.value if isinstance(key, yaml.ScalarNode) and key.tag == f"{_TAG}str" else None
        if name not in DEFAULTS:
            shown = repr(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise at.error(_line(key), f"no key is called {shown}; choose from {', '.join(DEFAULTS)}")
        if name in nodes:
            raise at.error(_line(key), f"{name} occurs twice; first on line {_line(nodes[name])}")
        nodes[name] = node
    return nodes


def _values(at: Experiment, key: str, node: yaml.Node, count: int | None) -> tuple[Value, ...]:
    if not isinstance(node, yaml.SequenceNode) or node.tag != f"{_TAG}seq":
        return (_value(at, key, node),) * (count or 1)
    if not node.value:
        raise at.error(_line(node), f"{key}: needed at least one value, got an empty list")
    if count is not None and len(node.value) != count:
        raise at.error(
            _line(node), f"{key}: needed one value, or {count} as there are SCRIPTs, got a list of {len(node.value)}"
        )
    return tuple(_value(at, key, item) for item in node.value)


def _value(at: Experiment, key: str, node: yaml.Node) -> Value:
    if not isinstance(node, yaml.ScalarNode):
        raise at.error(_line(node), f"{key}: needed text or a number (or a list of them), got a list or mapping in it")
    try:
        value = SafeConstructor().construct_object(node)
        text = str(value)  # fails for a number with very many digits
    except Exception as error:  # a tag on what does not fit it, such as !!int on nothing, fails in many ways
        reason = getattr(error, "problem", None) or f"{type(error).__name__}: {error}"
        raise at.error(_line(node), f"{key}: not a value of YAML: {reason}") from error
    if value is None and key == "TEMPORAL_AGGREGATION":  # the scripts read it as the word None, which is a name
        return Value("None", _line(node))
    if not isinstance(value, str | int | float) or not text.strip():
        raise at.error(_line(node), f"{key}: needed text or a number, got {node.value!r}")
    return Value(text, _line(node))


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1
