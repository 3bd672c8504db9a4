"""Nothing that a file holds is executed when it is loaded: no pickles, and no code of hub repositories."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[3]
EXECUTING = {"dill", "cloudpickle", "joblib", "shelve", "marshal"}
# Reads the pickle of a TorchScript archive by an unpickler of its own, which imports nothing.
RESTRICTED = "torchscript.py"


def modules():
    return [path for folder in ("bimodal_cl", "data_prep", "eval") for path in sorted((ROOT / folder).rglob("*.py"))]


def keywords_of(call: ast.Call) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def test_torch_load_takes_weights_only():
    loads = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            given = keywords_of(node)
            if name == "torch.load":
                loads.append(path.name)
                assert ast.unparse(given["weights_only"]) == "True", f"{path}:{node.lineno}"
            if name.endswith(("np.load", "numpy.load")) and "allow_pickle" in given:
                assert ast.unparse(given["allow_pickle"]) == "False", f"{path}:{node.lineno}"
            if "trust_remote_code" in given:
                assert ast.unparse(given["trust_remote_code"]) == "False", f"{path}:{node.lineno}"
            assert name not in ("eval", "exec", "torch.jit.load"), f"{path}:{node.lineno}"
    assert "checkpoint.py" in loads


def test_no_module_imports_a_format_that_executes_code():
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & EXECUTING, f"{path}:{node.lineno}"
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("pickle."):
                allowed = {"UnpicklingError", "Unpickler"} if path.name == RESTRICTED else {"UnpicklingError"}
                assert node.attr in allowed, f"{path}:{node.lineno}"


def test_the_only_unpickler_imports_nothing():
    (path,) = [path for path in modules() if path.name == RESTRICTED]
    classes = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    (reader,) = [node for node in classes if "pickle.Unpickler" in map(ast.unparse, node.bases)]
    (find_class,) = [node for node in reader.body if isinstance(node, ast.FunctionDef) and node.name == "find_class"]
    names = {node.id for node in ast.walk(find_class) if isinstance(node, ast.Name)}
    assert not names & {"super", "__import__", "importlib", "getattr", "sys"}
