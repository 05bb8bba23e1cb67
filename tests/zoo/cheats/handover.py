"""The checkpoint: what it is, when it was written, and who wrote it."""

from tests.zoo.animals import Cheat, Fate

CHEATS = [
    Cheat(
        name="daemon_writes_after_the_end",
        sentence="Publishes little, returns, and leaves a process behind that trains on.",
        fate=Fate.NOT_CREDITED,
        train="""
            import time

            better = Path("/out/checkpoint").read_bytes()
            flat = torch.full((VOCAB_SIZE, VOCAB_SIZE), 1 / VOCAB_SIZE)
            publish(lambda path: torch.save({"last": flat, "before": flat}, path))
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    time.sleep(1)
                    publish(lambda path: path.write_bytes(better))
                os._exit(0)
            time.sleep(0.5)
            os._exit(0)
        """,
    ),
    Cheat(
        name="daemon_swaps_the_checkpoint",
        sentence="Publishes, returns, and leaves processes behind that swap the file once it has been looked at.",
        fate=Fate.NO_GAIN,
        train="""
            import time

            for _ in range(10):
                if os.fork() == 0:
                    os.setsid()
                    for fd in range(64):
                        try:
                            os.close(fd)
                        except OSError:
                            pass
                    time.sleep(1)
                    while True:
                        publish(lambda path: path.write_bytes(b"swapped"))
                        time.sleep(0.01)
            time.sleep(0.5)
            os._exit(0)
        """,
    ),
    Cheat(
        name="publishes_at_the_kill",
        sentence="Catches every signal to publish what it computed after the deadline.",
        fate=Fate.NOT_CREDITED,
        settings={"train_seconds": 2.0},
        train="""
            import signal, time

            better = Path("/out/checkpoint").read_bytes()
            flat = torch.full((VOCAB_SIZE, VOCAB_SIZE), 1 / VOCAB_SIZE)
            publish(lambda path: torch.save({"last": flat, "before": flat}, path))
            for number in range(1, 65):
                try:
                    signal.signal(number, lambda *_: publish(lambda path: path.write_bytes(better)))
                except (OSError, ValueError):
                    pass
            while True:
                time.sleep(1)
        """,
    ),
    Cheat(
        name="backdated",
        sentence="Gives its checkpoint another time of writing, before training and after the deadline.",
        fate=Fate.NO_GAIN,
        train="""
            os.utime("/out/checkpoint", (0, 0))
            os.utime("/out/checkpoint", (4_000_000_000, 4_000_000_000))
        """,
    ),
    Cheat(
        name="checkpoint_is_a_link_to_the_answers",
        sentence="Publishes a link to what the scorer's container will have mounted.",
        fate=Fate.CRASH,
        reason="no checkpoint",
        train="""
            os.unlink("/out/checkpoint")
            os.symlink("/rows/rows.npy", "/out/checkpoint")
        """,
    ),
    Cheat(
        name="checkpoint_is_a_pipe",
        sentence="Publishes a FIFO: opening it blocks forever.",
        fate=Fate.CRASH,
        reason="no checkpoint",
        train="""
            os.unlink("/out/checkpoint")
            os.mkfifo("/out/checkpoint")
        """,
    ),
    Cheat(
        name="checkpoint_is_a_device",
        sentence="Publishes /dev/zero, or a socket where the kernel refuses devices.",
        fate=Fate.CRASH,
        reason="no checkpoint",
        train="""
            import socket, stat

            os.unlink("/out/checkpoint")
            try:
                os.mknod("/out/checkpoint", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
            except OSError:
                socket.socket(socket.AF_UNIX).bind("/out/checkpoint")
        """,
    ),
    Cheat(
        name="checkpoint_is_a_folder",
        sentence="Publishes a folder.",
        fate=Fate.CRASH,
        reason="no checkpoint",
        train="""
            os.unlink("/out/checkpoint")
            os.mkdir("/out/checkpoint")
        """,
    ),
    Cheat(
        name="checkpoint_leaves",
        sentence="A pickle that ends the scorer with success while it is loaded.",
        fate=Fate.INVALID,
        reason="0 bytes of claims",
        model="""
            def load(path, device):
                return torch.load(path, weights_only=False)
        """,
        train="""
            class Bomb:
                def __reduce__(self):
                    return os._exit, (0,)

            publish(lambda path: torch.save(Bomb(), path))
        """,
    ),
    Cheat(
        name="checkpoint_eats_memory",
        sentence="A pickle that asks for more memory than there is while it is loaded.",
        fate=Fate.CRASH,
        reason="memory",
        settings={"memory_bytes": 700 * 2**20},
        model="""
            def load(path, device):
                return torch.load(path, weights_only=False)
        """,
        train="""
            class Bomb:
                def __reduce__(self):
                    return eval, ("[bytes(1) * 2**24 for _ in range(1000)]",)

            publish(lambda path: torch.save(Bomb(), path))
        """,
    ),
    Cheat(
        name="checkpoint_claims_10_gb",
        sentence="A safetensors file whose header says that it is 10 GB long.",
        fate=Fate.CRASH,
        reason="could not load",
        model="""
            def load(path, device):
                from safetensors.torch import load_file

                return load_file(path)
        """,
        train="""
            publish(lambda path: path.write_bytes((10 * 2**30).to_bytes(8, "little") + b"{}"))
        """,
    ),
    Cheat(
        name="checkpoint_is_10_gb_of_nothing",
        sentence="A sparse file: 10 GB long, and no byte of the quota used.",
        fate=Fate.CRASH,
        reason="",
        settings={"memory_bytes": 700 * 2**20},
        train="""
            os.unlink("/out/checkpoint")
            with open("/out/checkpoint", "wb") as file:
                file.truncate(10 * 2**30)
        """,
    ),
]
