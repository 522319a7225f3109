"""The manifests of `deploy/`: each has the form that its program wants, its parts fit each other and the server, and
every `trimtab` in it is understood by the command line.

None is run here: that takes a cluster. The pods of KubeRay's objects are held to Kubernetes' schema; of the rest of
these objects no package of the index has the schema, so that the fields which KubeRay needs are looked at one by one.
"""

from __future__ import annotations

import copy
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_lines import understand
from study_tasks import write_task

from trimtab.base.task import load_task
from trimtab.serving.access import AllowedHosts
from trimtab.serving.middleware import OPEN_PATHS
from trimtab.serving.server import DRAIN_SECONDS

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE, ENGINE = DEPLOY / "compose" / "compose.yaml", DEPLOY / "compose" / "engine.yaml"
SERVE = DEPLOY / "kubernetes" / "serve.yaml"
CLUSTER, STUDY = DEPLOY / "kuberay" / "cluster.yaml", DEPLOY / "kuberay" / "study.yaml"
SKYPILOT, SLURM = DEPLOY / "skypilot" / "train.yaml", DEPLOY / "slurm" / "train.sbatch"
Plain = dict[str, Any]


def objects(file: Path) -> dict[str, Plain]:
    """The objects of a manifest by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(file.read_text(encoding="utf-8"))}


def require_valid(kubernetes_object: Plain) -> None:
    """Hold an object to the published schema of the newest version of Kubernetes that is there; no unknown field."""
    validate = pytest.importorskip("kubernetes_validate", reason="pip install 'trimtab[dev]'")
    validate.validate(kubernetes_object, validate.latest_version(), strict=True)


def seconds(text: str) -> int:
    return int(re.fullmatch(r"(\d+)s", text)[1])  # type: ignore[index]


# Kubernetes


@pytest.mark.parametrize("kind", ["Deployment", "Service", "PodDisruptionBudget"])
def test_kubernetes_objects_have_the_published_form(kind: str) -> None:
    found = objects(SERVE)
    assert len(found) == 3
    require_valid(found[kind])


def test_another_form_is_seen() -> None:
    pytest.importorskip("kubernetes_validate", reason="pip install 'trimtab[dev]'")
    wrong = copy.deepcopy(objects(SERVE)["Deployment"])
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(Exception, match="readynessProbe"):
        require_valid(wrong)


def test_service_and_budget_select_the_pods_of_the_servers() -> None:
    found = objects(SERVE)
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert found["Service"]["spec"]["selector"].items() <= labels.items()
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert found["PodDisruptionBudget"]["spec"]["minAvailable"] < found["Deployment"]["spec"]["replicas"]


def test_probes_ask_what_the_server_answers_without_a_key() -> None:
    (container,) = objects(SERVE)["Deployment"]["spec"]["template"]["spec"]["containers"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    names = [word.partition("=")[2] for word in container["args"] if word.startswith("--name=")]
    hosts = AllowedHosts("0.0.0.0", ports["http"], names)
    asked = {}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        request = container[probe]["httpGet"]
        asked[probe] = request["path"]
        assert request["port"] in ports
        assert request["path"] in OPEN_PATHS
        (host,) = [one["value"] for one in request["httpHeaders"] if one["name"] == "Host"]
        assert hosts.allows(host)
    assert asked == {
        "startupProbe": "/health/ready",
        "readinessProbe": "/health/ready",
        "livenessProbe": "/health/live",
    }
    assert hosts.allows(objects(SERVE)["Service"]["metadata"]["name"])


def test_a_pod_has_the_time_to_finish_its_answers_and_mounts_what_it_names() -> None:
    pod = objects(SERVE)["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > pause + DRAIN_SECONDS
    require_mounts(pod)


def require_mounts(pod: Plain) -> None:
    """Every volume is mounted, and every mount has its volume."""
    mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


# KubeRay


def groups(file: Path) -> Iterator[tuple[Plain, bool]]:
    """The groups of a Ray cluster, each with whether it is the head's."""
    one = yaml.safe_load(file.read_text(encoding="utf-8"))
    spec = one["spec"]["rayClusterSpec"] if one["kind"] == "RayJob" else one["spec"]
    yield spec["headGroupSpec"], True
    yield from ((group, False) for group in spec["workerGroupSpecs"])


@pytest.mark.parametrize("file", [CLUSTER, STUDY], ids=lambda file: file.stem)
def test_ray_clusters_have_what_kuberay_needs_and_pods_of_the_published_form(file: Path) -> None:
    one = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert (one["apiVersion"], one["kind"]) == ("ray.io/v1", "RayCluster" if file == CLUSTER else "RayJob")
    spec = one["spec"]["rayClusterSpec"] if file == STUDY else one["spec"]
    image_file = (DEPLOY / "kuberay" / "Containerfile").read_text(encoding="utf-8")
    assert f"/ray:{spec['rayVersion']}-" in image_file
    assert f'"ray[client]=={spec["rayVersion"]}"' in image_file
    images = set()
    for group, is_head in groups(file):
        if not is_head:
            assert group["groupName"]
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        pod = group["template"]["spec"]
        require_mounts(pod)
        images |= {container["image"] for container in pod["containers"]}
        require_valid(
            {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": group["template"]}
        )
    assert len(images) == 1  # one version of Ray, Python and Trimtab on all machines


def test_the_job_runs_on_the_same_cluster_as_the_other_manifest_makes() -> None:
    job, cluster = (yaml.safe_load(file.read_text(encoding="utf-8"))["spec"] for file in (STUDY, CLUSTER))
    assert job["rayClusterSpec"] == cluster
    assert job["backoffLimit"] == 0  # a study is gone on with, not begun again


# Compose


@pytest.mark.parametrize("file", [COMPOSE, ENGINE], ids=lambda file: file.stem)
def test_compose_files_have_the_published_form(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema", reason="pip install 'trimtab[dev]'")
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    found = subprocess.run([*check, str(file)], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(file.read_text(encoding="utf-8").replace("stop_grace_period", "stop_grace_periods"))
    assert subprocess.run([*check, str(wrong)], capture_output=True).returncode == 1


def test_the_proxy_asks_every_server_whether_it_is_ready() -> None:
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    servers = [name for name, one in services.items() if "--alias=production" in one.get("command", [])]
    assert len(servers) == 2
    caddy = (DEPLOY / "compose" / "Caddyfile").read_text(encoding="utf-8")
    assert re.search(r"reverse_proxy (.+) \{", caddy)[1].split() == [f"{name}:8000" for name in servers]  # type: ignore[index]
    assert re.search(r"health_uri (\S+)", caddy)[1] == "/health/ready"  # type: ignore[index]
    host = re.search(r"Host (\S+)", caddy)[1]  # type: ignore[index]
    assert AllowedHosts("0.0.0.0", 8000, []).allows(host)


@pytest.mark.parametrize("file", [COMPOSE, ENGINE], ids=lambda file: file.stem)
def test_services_wait_for_what_is_there_and_have_the_time_to_finish(file: Path) -> None:
    composed = yaml.safe_load(file.read_text(encoding="utf-8"))
    services = composed["services"]
    for one in services.values():
        assert one.get("depends_on", {}).keys() <= services.keys()
        named = {volume.partition(":")[0] for volume in one.get("volumes", [])}
        assert {name for name in named if not name.startswith(".")} <= composed["volumes"].keys()
    (server,) = [services[name] for name in ("serve1", "front") if name in services]
    assert seconds(server["stop_grace_period"]) > DRAIN_SECONDS


def test_the_script_that_makes_the_bucket_is_one() -> None:
    (script,) = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]["bucket"]["command"]
    subprocess.run(["bash", "-n", "-c", script.replace("$$", "$")], check=True)


def test_the_front_asks_the_engine_where_it_listens_for_the_model_that_it_serves(tmp_path: Path) -> None:
    """The table that the file's head shows is that of a task file, and its address, model and key are the engine's."""
    text = ENGINE.read_text(encoding="utf-8")
    table = "\n".join(line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#   "))
    task = load_task(write_task(tmp_path, "nowhere", ["api-fast+rag"], data='documents = ["."]', more=table))
    api, services = task.api["fast"], yaml.safe_load(text)["services"]
    options = dict(word.removeprefix("--").split("=") for word in services["engine"]["command"] if "=" in word)
    assert (api.url, api.model) == (f"http://engine:{options['port']}/v1", options["served-model-name"])
    assert f"--allow={api.key_env}@{api.url}" in services["front"]["command"]
    assert services["front"]["environment"][api.key_env] == services["engine"]["environment"]["VLLM_API_KEY"]
    assert f"./model:{options['model']}:ro" in services["engine"]["volumes"]


# Programs and their options


def served_words() -> dict[str, list[str]]:
    """The arguments of each container whose program is `trimtab`."""
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    (container,) = objects(SERVE)["Deployment"]["spec"]["template"]["spec"]["containers"]
    front = yaml.safe_load(ENGINE.read_text(encoding="utf-8"))["services"]["front"]["command"]
    return {"compose": services["serve1"]["command"], "engine": front, "kubernetes": container["args"]}


@pytest.mark.parametrize("place", ["compose", "engine", "kubernetes"])
def test_servers_are_started_with_options_that_exist(place: str) -> None:
    understand(served_words()[place])


def test_the_study_of_the_job_has_options_that_exist() -> None:
    program, *words = shlex.split(yaml.safe_load(STUDY.read_text(encoding="utf-8"))["spec"]["entrypoint"])
    assert program == "trimtab"
    understand(words)


# Stand-ins for programs of a cluster: what they are called with is looked at.
STAND_INS = {
    "srun": 'exec "$@"',
    "scontrol": 'test "$*" = "show hostnames node[1-2]" && printf "node1\\nnode2\\n"',
    "torchrun": 'printf "%s\\0" "$@" > called',
    "pip": 'test "$*" = "install trimtab"',
    "trimtab": 'printf "%s\\0" "$@" > pulled',
}
SLURM_SETS = {"SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_ID": "7"}
SKYPILOT_SETS = {
    "SKYPILOT_NUM_NODES": "1",
    "SKYPILOT_NODE_RANK": "0",
    "SKYPILOT_NUM_GPUS_PER_NODE": "8",
    "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
}


def run_script(folder: Path, script: Path, variables: dict[str, str], *words: str) -> None:
    """Run a script with the variables that its scheduler sets, and stand-ins for the cluster's programs."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for name, body in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(0o755)
    (folder / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
    (folder / ".venv" / "bin" / "activate").touch()
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-eu", str(script), *words], cwd=folder, env={"PATH": path, **variables}, check=True)


def words_of(called: Path) -> list[str]:
    return called.read_text().split("\0")[:-1]


def require_training(folder: Path, *, nodes: str, address: str, arm: str) -> None:
    """What `torchrun` was called with is understood by torch's own parser, and the training by ours."""
    from torch.distributed.run import get_args_parser

    launch = get_args_parser().parse_args(words_of(folder / "called"))
    assert (launch.nnodes, launch.nproc_per_node) == (nodes, "8")
    assert (launch.module, launch.training_script) == (True, "trimtab")
    assert address in (launch.rdzv_endpoint, f"{launch.master_addr}:{launch.master_port}")
    assert launch.training_script_args[:2] == ["train", arm]
    understand(launch.training_script_args)


def test_the_slurm_script_starts_one_training_on_all_nodes(tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", str(SLURM)], check=True)
    run_script(tmp_path, SLURM, SLURM_SETS, "lora", "--seed", "1")
    require_training(tmp_path, nodes="2", address="node1:29500", arm="lora")
    first, *rest = SLURM.read_text(encoding="utf-8").splitlines()
    assert first == "#!/bin/bash"
    begun = next(number for number, line in enumerate(rest) if line and not line.startswith("#"))
    asked = [number for number, line in enumerate(rest) if line.startswith("#SBATCH")]
    assert asked
    assert max(asked) < begun  # Slurm reads none after the first command
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+=\S+", rest[number]) for number in asked)


def test_the_skypilot_task_pulls_the_model_and_starts_one_training(tmp_path: Path) -> None:
    task = yaml.safe_load(SKYPILOT.read_text(encoding="utf-8"))
    assert task.keys() == {"name", "num_nodes", "resources", "workdir", "envs", "setup", "run"}
    assert task["resources"]["accelerators"].endswith(":8")
    for name in ("setup", "run"):
        (tmp_path / name).write_text(task[name])
        run_script(tmp_path, tmp_path / name, {**SKYPILOT_SETS, **task["envs"]})
    assert words_of(tmp_path / "pulled") == ["pull", task["envs"]["MODEL"]]
    understand(words_of(tmp_path / "pulled"))
    require_training(tmp_path, nodes="1", address="10.0.0.1:29500", arm=task["envs"]["ARM"])
