"""Processes that share a work of many items: of this machine (loky), or of a Ray cluster.

A worker is a process that builds once what it needs, then works on items, one at a time. One that
ends is replaced, and its item is worked on again. What it finds goes to files.
"""

from __future__ import annotations

import abc
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from bcgan_tf.distribute.quiet_start import start_tensorflow
from bcgan_tf.errors import UserError, first_line
from bcgan_tf.files import note
from bcgan_tf.settings.kinds import WorkerSpec

# Makes, in a worker, of the job what works on an item.
Build = Callable[[Any], Callable[[int], Any]]

# Times that an item is begun whose worker ends each time.
_ATTEMPTS = 8
# Seconds between two looks at what is finished.
_LOOK = 1.0
# Seconds to wait for an answer of a cluster's head.
_CONNECT = 10.0


class Workers(abc.ABC):
    """Several workers."""

    @property
    @abc.abstractmethod
    def count(self) -> int:
        """How many work at once."""

    @abc.abstractmethod
    def run(
        self, build: Build, job: Any, items: Sequence[int], look: Callable[[], None]
    ) -> dict[int, Any]:
        """Works on all items, in no certain order.

        Args:
            build: a function of a module; called once in each worker.
            job: what it is called with; it can be pickled.
            items: to be worked on; one may be worked on more than once.
            look: called every second, and at the end.

        Returns:
            By item what was returned, which should be little.

        Raises:
            UserError: what a worker raised; or the worker of an item ended again and again.
        """


def workers(spec: str | WorkerSpec) -> Workers:
    """The workers that a text stands for.

    Args:
        spec: ``"local:N"``: N processes on this machine, which share its processors and GPUs;
            ``"ray"`` or ``"ray:ADDRESS"``: a worker for each processor, or GPU where there are
            any, of a Ray cluster: the one that ``RAY_ADDRESS`` names or that runs here, else a new
            one on this machine.

    Raises:
        UserError: another text, or Ray is not installed.
    """
    try:
        engine, place = WorkerSpec.parse(str(spec))
    except ValueError:
        raise UserError(f"there are no workers {spec!r}; choose {WorkerSpec.WANTED}") from None
    return LocalWorkers(int(place)) if engine == "local" else RayWorkers(place or None)


class LocalWorkers(Workers):
    """Processes on this machine; each gets its part of the processors, and one of the GPUs.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    @property
    def count(self) -> int:
        """See :class:`Workers`."""
        return self._count

    def run(
        self, build: Build, job: Any, items: Sequence[int], look: Callable[[], None]
    ) -> dict[int, Any]:
        """See :meth:`Workers.run`."""
        found: dict[int, Any] = {}
        work = pickle.dumps((build, job))
        waiting = iter(list(items))
        slots = [_Slot(number, self.count) for number in range(min(self.count, len(items)))]
        lock, ended = threading.Lock(), threading.Event()

        def following() -> Iterator[int]:
            while not ended.is_set():
                with lock:
                    item = next(waiting, None)
                if item is None:
                    return
                yield item

        with ThreadPoolExecutor(len(slots)) as threads:
            try:
                futures = [threads.submit(slot.work, work, following(), found) for slot in slots]
                while futures:
                    done, others = wait(futures, _LOOK, return_when="FIRST_COMPLETED")
                    for future in done:
                        future.result()
                    look()
                    futures = list(others)
            finally:
                ended.set()
                for slot in slots:
                    slot.ended = True  # all of them, before the first is stopped
                for slot in slots:
                    slot.stop()
        return found


class _Slot:
    """The place of one process, which is replaced when it ends."""

    def __init__(self, number: int, count: int) -> None:
        self._number, self._count = number, count
        self._process: Any = None
        self._lock = threading.Lock()
        self.ended = False  # no process is begun any more

    def work(self, work: bytes, items: Iterator[int], found: dict[int, Any]) -> None:
        """Works on items, and adds to ``found`` what is returned."""
        for item in items:
            for attempt in range(_ATTEMPTS):
                try:
                    found[item] = self._submit(work, item).result()
                    break
                except BrokenProcessPool as error:
                    self.stop()
                    if self.ended:
                        return
                    if attempt == _ATTEMPTS - 1:
                        raise UserError(
                            f"a worker ended {_ATTEMPTS} times at the same images (killed by a "
                            "signal, perhaps for want of memory); choose fewer workers, or a "
                            "smaller --batch-size"
                        ) from error
                    note("a worker ended before its work; another one does it again")

    def _submit(self, work: bytes, item: int) -> Any:
        from loky.process_executor import ProcessPoolExecutor

        with self._lock:
            if self.ended:
                raise BrokenProcessPool
            if self._process is None:
                self._process = ProcessPoolExecutor(1)
            share = self._number, self._count
            return self._process.submit(_work, work, item, share, os.getpid())

    def stop(self) -> None:
        """Kills the process, if there is one."""
        with self._lock:
            if self._process is not None:
                self._process.shutdown(kill_workers=True)
                self._process = None


class RayWorkers(Workers):
    """Actors of a Ray cluster: one for each GPU, or where there is none for each processor.

    Args:
        address: of the cluster; None: the one that runs here, else a new one on this machine.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, address: str | None = None) -> None:
        try:
            import ray
        except ImportError as error:
            raise UserError("Ray is not installed; install bcgan-tf[ray], on every node") from error
        if not ray.is_initialized():
            quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
            address = address or os.environ.get("RAY_ADDRESS")
            try:
                _check_there(address)
                ray.init(address=address, **quiet)
            except (OSError, RuntimeError, ValueError) as error:
                where = f"at {address}" if address else "on this machine"
                raise UserError(
                    f"there is no Ray cluster {where} ({first_line(error)}); start it, or give the "
                    "address of another"
                ) from error
        found = ray.cluster_resources()
        self._ray = ray
        self._processors, self._gpus = int(found.get("CPU", 0)), int(found.get("GPU", 0))

    @property
    def count(self) -> int:
        """See :class:`Workers`."""
        return max(1, self._gpus or self._processors)

    def run(
        self, build: Build, job: Any, items: Sequence[int], look: Callable[[], None]
    ) -> dict[int, Any]:
        """See :meth:`Workers.run`."""
        found: dict[int, Any] = {}
        ray, each = self._ray, max(1, self._processors // self.count)
        shared = {"num_cpus": each, "num_gpus": 1 if self._gpus else 0}
        actor = ray.remote(**shared, max_restarts=-1, max_task_retries=_ATTEMPTS)(_RayWorker)
        kept = ray.put(job)
        idle = [actor.remote(build, each) for _ in range(min(self.count, len(items)))]
        actors, waiting, working = list(idle), list(items), {}
        try:
            while waiting or working:
                while waiting and idle:
                    one, item = idle.pop(), waiting.pop(0)
                    working[one.work.remote(kept, item)] = one, item
                done, _ = ray.wait(list(working), timeout=_LOOK)
                for result in done:
                    one, item = working.pop(result)
                    found[item] = ray.get(result)
                    idle.append(one)
                look()
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from error
            raise
        except ray.exceptions.RayActorError as error:
            raise UserError(
                f"a worker ended {_ATTEMPTS} times at the same images ({error}); give each more "
                "memory, or choose a smaller --batch-size"
            ) from error
        finally:
            for one in actors:
                ray.kill(one)
        return found


def _check_there(address: str | None) -> None:
    """Raises OSError where nobody listens at HOST:PORT, for which Ray would wait without end."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_CONNECT).close()


class _RayWorker:
    """An actor; one that Ray starts again builds again."""

    def __init__(self, build: Build, processors: int) -> None:
        self._build, self._processors = build, processors
        self._made: Callable[[int], Any] | None = None

    def work(self, job: Any, item: int) -> Any:
        """What the job's function returns for an item."""
        if self._made is None:
            _use(self._processors)
            self._made = self._build(job)
        return self._made(item)


# In a process of this machine: what works on an item.
_made: list[Callable[[int], Any]] = []


def _work(work: bytes, item: int, share: tuple[int, int], parent: int) -> Any:
    """What the job's function returns for an item; called in a process of this machine."""
    if not _made:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends this process
        os.dup2(2, 1)  # stdout belongs to results
        start_tensorflow()
        number, count = share
        _use(max(1, len(_processors()) // count), number)
        build, job = pickle.loads(work)  # which imports what they are made of
        _made[:] = [build(job)]
    return _made[0](item)


def _end_with(parent: int) -> None:
    """Ends this process when the one that started it has ended, however that came about."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


def _use(processors: int, number: int | None = None) -> None:
    """Lets TensorFlow use so many threads, and of several GPUs the one of this number."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(processors)
    tf.config.threading.set_inter_op_parallelism_threads(processors)
    gpus = tf.config.list_physical_devices("GPU")
    if gpus and number is not None:
        gpus = [gpus[number % len(gpus)]]
        tf.config.set_visible_devices(gpus, "GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)


def _processors() -> Sequence[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)
