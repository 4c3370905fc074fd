"""Four programs that train a diffusion model, behind one signature: ours and three public ones.

Each peer's own loop runs, unchanged: nothing of it is written here again. The loop is watched from outside by a hook
that torch calls after every optimiser step, and left by an exception that the hook raises. What a peer is given is what
its user can give: settings, a folder of PNG files, or a data set in place of the one it names.

- zoubohao/DenoisingDiffusionProbabilityModel-ddpm- comes by the path of a checkout, it is no package.
  `Diffusion.Train.train` runs with the settings in its `Main.py`, on the CPU, its CIFAR10 replaced by our images.
- lucidrains/denoising-diffusion-pytorch is the package of that name. Its `Trainer` runs with its own defaults, but
  draws no samples and takes no FID in between, both of which cost more than the training.
- huggingface/diffusers comes by the path of `examples/unconditional_image_generation/train_unconditional.py` from its
  repository, beside the package. The script itself runs, rather than a loop of ours over the package's parts, because
  both network (`--model_config_name_or_path`) and data (`--train_data_dir`) are options of it. Options are those of the
  example in its README (`--center_crop --random_flip --use_ema`), defaults otherwise; the samples that it insists on
  after the first epoch are one image of one step.

`pip install denoising-diffusion-pytorch accelerate datasets tensorboard` has what they need beyond this repository's
environment. All run in a process of their own (`isolated`), because they change modules, arguments and environment.
"""

import contextlib
import importlib
import importlib.util
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import Dataset

from benchmarks._isolated import module_at, recorded
from ddpm.config import parse
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.diffusion.unet import UNet, UNetConfig
from ddpm.images import to_uint8
from ddpm.rng import word
from ddpm.sampling.predictor import PredictorConfig, make_predictor
from ddpm.sampling.samplers import ImageNoise, SamplerConfig, run_sampler
from ddpm.training.batches import Batches
from ddpm.training.initial import initial_network
from ddpm.training.recipe import Recipe, TrainConfig
from ddpm.training.trainer import Trainer, TrainState
from stages.kit.params import read_params
from stages.kit.progress import progress

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "data/images/train.npy"
CPU = torch.device("cpu")
SAMPLING_STEPS = 100
"""Network evaluations an image, where a program can choose."""


class Stopped(Exception):  # noqa: N818
    """Raised by `Clock` in the middle of a loop to leave it."""


class Clock:
    """Notes the time at the end of each step and raises `Stopped` after `steps` of them, or `seconds` after the first.

    The first step isn't counted in: kernels are chosen and workers are started in it.
    """

    def __init__(self, *, steps: float = math.inf, seconds: float = math.inf):
        self.steps, self.seconds = steps, seconds
        self.times: list[float] = []

    def tick(self, *_: object) -> None:
        """A step is done."""
        self.times.append(time.perf_counter())
        if len(self.times) >= self.steps or self.times[-1] - self.times[0] >= self.seconds:
            raise Stopped

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Tick after each step of any of torch's optimisers; at the end leave the loop in the block."""
        hook = register_optimizer_step_post_hook(self.tick)
        try:
            with contextlib.suppress(Stopped):
                yield
        finally:
            hook.remove()

    def seconds_per_step(self, skipped: int) -> float:
        """The mean over all steps but the `skipped` first ones, at least one."""
        return (self.times[-1] - self.times[skipped - 1]) / (len(self.times) - skipped)


@dataclass(frozen=True)
class Trained:
    """What a program made: how many numbers its network has learnt, in batches of how many images, and its sampler.

    `sample` takes a number of images to uint8 `[N, H, W, 3]`, from averaged weights where the program averages.
    """

    parameters: int
    batch: int
    sample: Callable[[int], np.ndarray]


class Program(Protocol):
    """The signature that the four share once their own settings are bound.

    `folder` is what `workplace` made. `total_steps` is how long a schedule of the learning rate is to be, rounded up to
    epochs; None keeps the program's own length.
    """

    def __call__(self, folder: Path, clock: Clock, *, total_steps: int | None = None) -> Trained: ...  # noqa: D102


def ours(
    folder: Path,
    clock: Clock,
    *,
    total_steps: int | None = None,
    model: str = "tiny",
    network: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    precision: str | None = None,
) -> Trained:
    """Our own training of `models.<model>`, with changes to its network and its recipe."""
    params = read_params()
    shape = parse(UNetConfig, {**params.mapping("models", model, "network"), **(network or {})}, "network")
    learnt = parse(Recipe, {**params.mapping("models", model, "recipe"), **(recipe or {})}, "recipe")
    changed = {"precision": precision} if precision else {}
    config = parse(TrainConfig, {**params.mapping("train"), **changed}, "train")
    schedule, images = NoiseSchedule(params.section(DiffusionConfig, "diffusion")), np.load(IMAGES)
    epochs = params.top.epochs
    if total_steps is not None:
        epochs = math.ceil(total_steps * learnt.batch_images / len(images))
    torch.manual_seed(word(0, "weights"))
    state = TrainState(initial_network(UNet(shape, images.shape[1])), learnt, CPU)
    batches = Batches(images, None, 1, schedule, learnt, flip=config.flip, seed=0, device=CPU)
    trainer = Trainer(batches, schedule, config, seed=0, epochs=epochs)
    with contextlib.suppress(Stopped):
        for _ in trainer.fit(state):
            clock.tick()
    denoiser = Denoiser(state.averages[0], schedule, learnt.target, precision=trainer.precision)
    predict = make_predictor(denoiser, PredictorConfig())
    sampler = SamplerConfig(sampler="ancestral", steps=SAMPLING_STEPS)

    def sample(count: int) -> np.ndarray:
        noise = ImageNoise(0, "sample", range(count), (3, *images.shape[1:3]), CPU)
        return to_uint8(run_sampler(sampler, predict, schedule, noise(), noise))

    return Trained(learnt_numbers(state.model), learnt.batch_images, sample)


class LikeCifar(Dataset):
    """Our images as torchvision's CIFAR10 gives its own: (transformed picture, label)."""

    def __init__(self, transform: Callable[[Image.Image], Any]):
        self.images, self.transform = np.load(IMAGES), transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[index])), 0


def zoubohao(
    folder: Path,
    clock: Clock,
    *,
    total_steps: int | None = None,
    source: Path,
    settings: Mapping[str, Any],
    bfloat16: bool = False,
) -> Trained:
    """`Diffusion.Train.train` of the checkout `source` with changes to the settings in its `Main.py`.

    Its loop knows float32 only: `bfloat16` puts an autocast around it, from outside. It averages no weights. Its
    sampler takes all 1,000 steps; `eval`, which draws 32 x 32 pixels and nothing else, isn't used. With fewer than ten
    epochs its warm-up divides by zero, so that there are at least ten in its schedule.
    """
    sys.path.insert(0, str(source))
    main: Any = importlib.import_module("Main")
    train: Any = importlib.import_module("Diffusion.Train")
    found: list[dict[str, Any]] = []
    main.train = found.append
    main.main()
    config = {**found[0], "device": "cpu", "save_weight_dir": str(folder), **settings}
    if total_steps is not None:
        config["epoch"] = max(10, math.ceil(total_steps / (len(np.load(IMAGES)) // config["batch_size"])))
    networks: list[nn.Module] = []
    train.UNet = recorded(train.UNet, networks)
    train.CIFAR10 = lambda transform, **_: LikeCifar(transform)
    with clock.watching(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        train.train(config)
    network = networks[0].eval()
    sampler = train.GaussianDiffusionSampler(network, config["beta_1"], config["beta_T"], config["T"])

    def sample(count: int) -> np.ndarray:
        with torch.inference_mode():
            return to_uint8(sampler(torch.randn(count, 3, *image_size())))

    return Trained(learnt_numbers(network), config["batch_size"], sample)


def lucidrains(
    folder: Path,
    clock: Clock,
    *,
    total_steps: int | None = None,
    network: Mapping[str, Any],
    recipe: Mapping[str, Any] | None = None,
    bfloat16: bool = False,
) -> Trained:
    """The package's `Trainer`, with the arguments in `recipe`. Its rate is constant: `total_steps` changes nothing."""
    os.environ["ACCELERATE_USE_CPU"] = "true"
    package = importlib.import_module("denoising_diffusion_pytorch")
    diffusion = package.GaussianDiffusion(
        package.Unet(**network), image_size=image_size(), sampling_timesteps=SAMPLING_STEPS
    )
    trainer = package.Trainer(
        diffusion,
        str(folder / "png"),
        results_folder=str(folder),
        amp=bfloat16,
        mixed_precision_type="bf16",
        calculate_fid=False,
        save_and_sample_every=sys.maxsize,
        **(recipe or {}),
    )
    with clock.watching():
        trainer.train()
    averaged = trainer.ema.ema_model.eval()

    def sample(count: int) -> np.ndarray:
        return to_uint8(averaged.sample(batch_size=count) * 2 - 1)

    return Trained(learnt_numbers(diffusion), trainer.batch_size, sample)


def diffusers(
    folder: Path,
    clock: Clock,
    *,
    total_steps: int | None = None,
    script: Path,
    network: Mapping[str, Any],
    recipe: Mapping[str, Any] | None = None,
    bfloat16: bool = False,
) -> Trained:
    """`main` of `train_unconditional.py` with the options in `recipe`, and its `DDPMPipeline` for the samples."""
    os.environ |= {"ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    package = importlib.import_module("diffusers")
    unet = package.UNet2DModel(sample_size=image_size()[0], **network)
    unet.save_config(folder / "unet")
    module = module_at(script)
    averages: list[Any] = []
    module.EMAModel = recorded(module.EMAModel, averages)
    sys.argv = [script.name, *diffusers_options(folder, bfloat16)]
    options = module.parse_args()
    vars(options).update(recipe or {})
    if total_steps is not None:
        options.num_epochs = math.ceil(total_steps * options.train_batch_size / len(np.load(IMAGES)))
    with clock.watching():
        module.main(options)
    averages[0].copy_to(unet.parameters())
    pipeline = package.DDPMPipeline(unet.eval(), package.DDPMScheduler(num_train_timesteps=options.ddpm_num_steps))

    def sample(count: int) -> np.ndarray:
        drawn = pipeline(batch_size=count, num_inference_steps=SAMPLING_STEPS, output_type="np").images
        return (drawn * 255).round().astype(np.uint8)

    return Trained(learnt_numbers(unet), options.train_batch_size, sample)


def diffusers_options(folder: Path, bfloat16: bool) -> Sequence[str]:
    """The command line of the script: where things are, what its README adds, and as little beside training as can be.

    After the first epoch it draws samples and saves, however rarely that is asked for.
    """
    return [
        *("--train_data_dir", f"{folder}/png", "--cache_dir", f"{folder}/cache", "--output_dir", f"{folder}/out"),
        *("--model_config_name_or_path", f"{folder}/unet", "--resolution", str(image_size()[0])),
        *("--center_crop", "--random_flip", "--use_ema", "--mixed_precision", "bf16" if bfloat16 else "no"),
        *("--eval_batch_size", "1", "--ddpm_num_inference_steps", "1", "--save_images_epochs", str(sys.maxsize)),
        *("--save_model_epochs", str(sys.maxsize), "--checkpointing_steps", str(sys.maxsize)),
    ]


def learnt_numbers(network: nn.Module) -> int:
    """How many parameters of `network` are trained."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def image_size() -> tuple[int, int]:
    """Height and width of our images, in pixels."""
    height, width = np.load(IMAGES, mmap_mode="r").shape[1:3]
    return height, width


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder with our training images as PNG files in `png`, for the peers that read such a folder."""
    images = np.load(IMAGES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "png").mkdir()
        with progress(len(images), "img", label="writing PNG files") as bar:
            for index, image in enumerate(images):
                Image.fromarray(image).save(folder / f"png/{index:06}.png")
                bar.update()
        yield folder
