"""A client of the worker protocol: what people would write against the published file, and what they must be answered.

Usage: hwp_client.py ADDRESS OTHER, two nodes of one cluster; the modules that grpcio-tools makes of hwp.proto are on PYTHONPATH.
Ends with 0 if every answer was right; says which was not, and ends with 1, if one was wrong.
"""

import sys

import grpc
import hwp_pb2
import hwp_pb2_grpc

# Long enough for a loaded machine.
DEADLINE_S = 30


def check(what, got, expected):
    if got != expected:
        sys.exit(f"{what}: expected {expected!r}, got {got!r}")


def refused(what, code, word, call, request):
    """Makes a call that must be refused, for a reason that says what is meant."""
    try:
        answer = call(request, timeout=DEADLINE_S)
    except grpc.RpcError as error:
        check(what, error.code(), code)
        if word not in error.details():
            sys.exit(f"{what}: no {word!r} in {error.details()!r}")
    else:
        sys.exit(f"{what}: expected {code}, got the answer {answer!r}")


def register(node):
    registration = hwp_pb2.WorkerRegistration(worker_id="python-worker", capabilities=["linux", "python", "slots=2"])
    status = node.RegisterWorker(registration, timeout=DEADLINE_S)
    check("worker_id", status.worker_id, "python-worker")
    check("state", status.state, "ready")


def submit(node, other):
    echo = hwp_pb2.AssignJobRequest(job_id="python-echo", name="greeting", command=["sh", "-c", "echo from a job; exit 3"])
    check("AssignJob", node.AssignJob(echo, timeout=DEADLINE_S).job_id, "python-echo")
    check("AssignJob again", node.AssignJob(echo, timeout=DEADLINE_S).job_id, "python-echo")
    changed = hwp_pb2.AssignJobRequest(job_id="python-echo", name="greeting", command=["true"])
    refused("another command", grpc.StatusCode.ALREADY_EXISTS, "python-echo", node.AssignJob, changed)
    nothing = hwp_pb2.AssignJobRequest(job_id="python-nothing", name="nothing")
    refused("no command", grpc.StatusCode.INVALID_ARGUMENT, "command", node.AssignJob, nothing)
    refused("no command there", grpc.StatusCode.INVALID_ARGUMENT, "command", other.AssignJob, nothing)
    long = hwp_pb2.AssignJobRequest(job_id="python-long", command=["sleep", "600"])
    check("AssignJob of a long one", node.AssignJob(long, timeout=DEADLINE_S).job_id, "python-long")


def main():
    address, elsewhere = sys.argv[1:]
    with grpc.insecure_channel(address) as channel, grpc.insecure_channel(elsewhere) as second:
        node = hwp_pb2_grpc.WorkerServiceStub(channel)
        other = hwp_pb2_grpc.WorkerServiceStub(second)

        register(node)
        submit(node, other)

        lines = (hwp_pb2.LogEntry(job_id="python-echo", data=f"pushed line {number}") for number in range(3))
        check("StreamLogs", node.StreamLogs(lines, timeout=DEADLINE_S), hwp_pb2.Empty())

        cancel = hwp_pb2.CancelJobRequest(job_id="python-long")
        check("CancelJob", node.CancelJob(cancel, timeout=DEADLINE_S), hwp_pb2.Empty())
        unknown = hwp_pb2.CancelJobRequest(job_id="python-nobody")
        refused("an unknown job", grpc.StatusCode.NOT_FOUND, "python-nobody", node.CancelJob, unknown)
        stray = iter([hwp_pb2.LogEntry(job_id="python-nobody", data="lost")])
        refused("lines of an unknown job", grpc.StatusCode.NOT_FOUND, "python-nobody", node.StreamLogs, stray)
        # Workers may say it as often as they like.
        register(node)


main()
