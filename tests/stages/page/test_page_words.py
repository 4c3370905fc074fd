"""The page's words follow its numbers."""

import re

import pytest
from page_inputs import COMPARISON, DETAILS, QUALITY, REPEATED, SPLIT, distances, estimate, measured, placed
from PIL import Image


def test_words_follow_the_numbers(build):
    text = (build() / "page.md").read_text()
    assert "no nearer to the training images than new real images" in text
    assert "wholly above 0" in text
    near = {**DETAILS["rank"], "percentile": placed(0.4, 64), "best": {**distances(0.06, 6), "flagged": 0}}
    alike = {**DETAILS["evaluate"], "samples": measured(0.04)}
    text = (build({"rank": near, "evaluate": alike}) / "page.md").read_text()
    assert "lie nearer to the training images than new real images" in text
    assert "interval of the samples\N{RIGHT SINGLE QUOTATION MARK} KID does not lie above 0" in text
    assert "cannot be told from real images" in text


def test_the_yardsticks_of_the_best_are_told(build):
    text = (build() / "page.md").read_text()
    assert "LPIPS between batches of training images is 0.550 to 0.650 (means of 16 pairs of batches of 64)" in text
    assert "have a mean of 0.170 to 0.270 (19 batches); the mean of our best, 0.200, lies within" in text
    far = {**DETAILS["rank"], "best": {**distances(0.6, 6), "flagged": 0}}
    text = (build({"rank": far}) / "page.md").read_text()
    assert "Not all of our best are nearer than that." in text
    assert "lies above all of these" in text
    few = {name: distances(0.22, 4) for name in ("lowest", "mean", "highest")}
    text = (build({"rank": {**DETAILS["rank"], "best_of_held_out": few}}) / "page.md").read_text()
    assert "(4 batches); the mean of our best, 0.200, says little beside so few" in text
    none = {name: {"n": 0} for name in ("lowest", "mean", "highest")}
    text = (build({"rank": {**DETAILS["rank"], "best_of_held_out": none}}) / "page.md").read_text()
    assert "too few to say" in text
    assert "The fair one" not in text


def test_guidance_is_told(build):
    assert "guide" not in (build() / "page.md").read_text().partition("## 4")[0]
    text = (build(params={"sample.guidance": 1.5}) / "page.md").read_text()
    assert "They are guided, classifier-free, with a weight of 1.5." in text
    text = (build(params={"sample.guidance": 2.0, "sample.guide": "../weak"}) / "page.md").read_text()
    assert "A weaker model, ../weak, guides them with a weight of 2.0." in text


@pytest.mark.parametrize(
    ("objective", "critic", "words"),
    [
        ("distillation", 0.03, r"distillation \(Song et al. 2023\)[^;]*"),
        ("matching", 0.0, r"distillation \(Song et al. 2023\)[^;]*; then by distribution matching [^;]*"),
        ("matching", 0.03, r"distillation \(Song et al. 2023\).*; then by distribution .*; a critic .* 0.03\)"),
        ("tuning", 0.03, r"tuning \(Geng et al. 2024\).*"),
    ],
)
def test_tuning_is_told_where_there_was_one(build, objective, critic, words):
    folder = build()
    assert "these weights were tuned" not in (folder / "page.md").read_text()
    assert "tune." not in (folder / "page.md").read_text()
    assert not (folder / "figures" / "tune_loss.svg").exists()
    sampling = {"ema_decay": 0.99, "sampler": "consistency", "steps": 2, "spacing": "logsnr_trailing", "clip": True}
    tune = {"tune": {"objective": objective, "points": 12, "teacher_steps": 3, "critic_weight": critic}}
    tune |= {"sampling": sampling, "steps": 4000}
    tune |= {"loss": {"last_tenth": 0.0321, "n": 400}}
    folder = build({"tune": tune}, {"tune.objective": objective})
    text = (folder / "page.md").read_text()
    assert re.search(rf"tuned in 4,000 further steps, by consistency {words}\.$", text, re.MULTILINE)
    assert "the average of the tuned weights (decay 0.99)" in text
    assert "the average of the weights" not in text
    assert "the last tenth of the steps 0.0321 (n = 400)" in text
    assert "(Song et al. 2023), in 2 of the 1,000 steps" in text
    assert re.search(r"\| 2, 2b, 2c, [^|]*7, 8 and this page \|", text)
    assert f"| `tune.objective` | `{objective}` |" in text
    assert (folder / "figures" / "tune_loss.svg").exists()


def test_times_are_told_as_the_shifted_schedule_has_them(build):
    """A shift of the log SNR by -2 makes log sigma greater by 1."""
    names = {f"models.tiny.recipe.timesteps{end}": value for end, value in (("", "log_normal"), ("_mean", -0.2))}
    assert "(mean \N{MINUS SIGN}0.20, standard deviation" in (build(params=names) / "page.md").read_text()
    shifted = build(params={**names, "models.tiny.log_snr_shift": -2.0})
    assert "(mean 0.80, standard deviation" in (shifted / "page.md").read_text()


def test_categories_are_told_where_there_are_some(build):
    assert "Category by category" not in (build() / "page.md").read_text()
    compared = {key: value for key, value in measured(0.3).items() if "alexnet" in key}
    sets = {"samples": compared, "real": compared}
    text = (build({"evaluate": {**DETAILS["evaluate"], "categories": {"tower": sets}}}) / "page.md").read_text()
    assert re.search(r"\| tower \| 0.300 \[0.250, 0.350\] \(0.300\) \|", text)
    assert "All samples are of the category" not in text
    text = (build(params={"sample.category": "tower"}) / "page.md").read_text()
    assert "All samples are of the category tower, the images of all categories" in text
    assert "one of tower alone, as here, is better judged by the table of categories" in text


def test_the_first_row_of_an_interpolation_is_the_report_s_only_if_it_is(build):
    words = "The first row is the report\N{RIGHT SINGLE QUOTATION MARK}s method"
    assert words in (build() / "page.md").read_text()
    others = {"interpolate.methods": ["slerp_ddim", "lerp_ancestral"]}
    assert words not in (build(params=others) / "page.md").read_text()


def test_evaluation_is_told_as_it_is(build):
    text = (build() / "page.md").read_text()
    assert "There is no FID: 64 samples and 4,000 real images; the covariance of 2,048 features." in text
    assert "nine intervals 6 leave 0 out" in text
    assert "poor at the form of the roof: it mistakes 30 of 100" in text
    assert "distances lies above the distance of the training images" in text
    assert "not confirmed: some never occur (section 6)" in text
    assert "more than the 8 bits" not in text
    evaluate = {key: value for key, value in DETAILS["evaluate"].items() if key != "factors"}
    evaluate["frechet"] = {"fid_inception": {**estimate(12.5, 5000), "all_training_images": 50000}}
    bits = {name: estimate(9, 500) for name in DETAILS["likelihood"]["bits_per_dim"]}
    likelihood = {**DETAILS["likelihood"], "bits_per_dim": bits}
    text = (build({"evaluate": evaluate, "likelihood": likelihood}) / "page.md").read_text()
    assert "features, to all 50,000 training images is 12.500 [12.450, 12.550] (n = 5,000)" in text
    assert not re.search("There is no FID|time of day|classifier", text.partition("\n## 9")[0])
    assert "more than the 8 bits" in text


def test_copies_are_told(build):
    assert "0 of 64 samples are flagged" in (build() / "page.md").read_text()
    rank = DETAILS["rank"]
    copied = {**rank, "best": {**rank["best"], "flagged": 2}, "best_unseen": {"n": 0}}
    copied["copies"] = {**rank["copies"], "samples": estimate(1.0)}
    text = (build({"rank": copied}) / "page.md").read_text()
    assert "64 of 64 samples are flagged" in text
    assert "2 of the best 6 are among them" in text
    assert "no selection without copies" in text
    near, far = ({**rank, "best_unseen": distances(median, 6)} for median in (0.2, 0.3))
    assert "0.150 to 0.250, are good without being copies" in (build({"rank": near}) / "page.md").read_text()
    assert "Not all of them are good" in (build({"rank": far}) / "page.md").read_text()
    few = {**rank, "copies": {**rank["copies"], "limit": 0.0}}
    text = (build({"rank": few}) / "page.md").read_text()
    assert "too few to flag anything" in text
    assert "cannot tell (section 5)" in text


def test_resizing_for_lpips_is_told(build):
    resized = {**DETAILS["rank"], "lpips": {"net": "alex", "input_size": 64, "flips": False}}
    text = (build({"rank": resized}) / "page.md").read_text()
    assert "of images resized to 64" in text
    assert "counts mirrored" not in text


def test_the_benchmark_of_sampling_is_told_as_it_is(build):
    text = (build() / "page.md").read_text()
    assert "are 10, by unipc, 10 steps, logsnr" in text
    assert "with the weights of this run" in text
    assert "64 images take 1.00 s instead of 100.0 s: 100 times as fast" in text
    assert "drawn so" not in text
    own = {f"sample.{key}": value for key, value in QUALITY["pick"].items() if key != "precision"}
    assert "The samples of this page are drawn so." in (build(params=own) / "page.md").read_text()
    untimed = [{**row, "seconds": None} for row in QUALITY["rows"]]
    first = {**QUALITY["pick"], "sampler": "ancestral", "steps": 1000, "spacing": "trailing"}
    others = {"weights": "", "machine": None, "pick": first, "less_float32": None, "rows": untimed}
    text = (build(quality_time=others) / "page.md").read_text()
    assert "weights of model tiny that are not this run" in text
    assert "No other sampler passes with fewer evaluations." in text
    assert not re.search("times as fast|Times are medians|float32 instead", text)


def test_what_became_of_the_data_is_told(build):
    text = (build() / "page.md").read_text()
    assert "3 repeat an earlier one pixel for pixel and 4 nearly so; 1 and 2 are held-out images as well" in text
    assert "They were kept." in text
    assert "centre crops, resized" in text
    split = {**SPLIT, "images_of": {"church": 3000, "tower": 1000}}
    none = {name: {"exact": 0, "near": 0} for name in REPEATED}
    classes = {"train": split | none, "val": split, "near_rms": 8.0}
    changes = {"sources.demo.categories": ["church", "tower"], "extract.geometry": "squash", "extract.dedupe": "drop"}
    text = (build({"extract": classes}, changes) / "page.md").read_text()
    assert "| split | records | used | bad | dropped | enlarged | jpeg | webp | L | RGB | church | tower |" in text
    assert "| training | 4,011 | 4,000 | 1 | 10 | 7 | 2,000 | 2,011 | 10 | 4,000 | 3,000 | 1,000 |" in text
    assert "No training image repeats another one" in text
    assert "The first training images of each category" in text
    assert "whole pictures, resized" in text
    assert "These were left out" not in text


@pytest.mark.parametrize(("data", "words"), [("demo", "cannot be compared"), ("lsun", "of the same kind, LSUN")])
def test_distances_are_compared_with_the_report_s_only_on_its_data(build, data, words):
    text = (build(params={"data": data, "model": "paper"}) / "page.md").read_text()
    assert words in text
    assert ("not comparable: other data (" in text) == (data != "lsun")
    assert "not measured with this model" in text, "a time of another model"


def test_latents_are_told_where_the_model_learns_them(build, tmp_path):
    assert "learns latents" not in (build() / "page.md").read_text()
    floor = {"decoded": estimate(0.08, 250), "real": estimate(0.01, 250)}
    autoencode = {"shape": [4, 12, 12], "channels": [], "warnings": ["channel 2 is dead: KL 0.001 nats"]}
    evaluate = DETAILS["evaluate"] | {
        "autoencoder": {"psnr": estimate(27.5, 500), "lpips": estimate(0.06, 500), "kid": floor}
    }
    (tmp_path / "latents").mkdir(exist_ok=True)
    Image.new("RGBA", (90, 40)).save(tmp_path / "latents" / "reconstructions.png")
    likelihood = {"absent": "the bound holds for latents", "simple_loss": estimate(0.2, 500)}
    details = {"autoencode": autoencode, "evaluate": evaluate, "likelihood": likelihood}
    text = (build(details, {"model": "latent"}) / "page.md").read_text()
    times = "\N{MULTIPLICATION SIGN}"
    assert f"The network learns latents (Rombach et al. 2022): 4 {times} 12 {times} 12 values" in text
    assert "ratio of 27.5 [27.4, 27.6] dB" in text
    assert "Half of them, decoded, have a KID of 0.080" in text
    assert "Beware: channel 2 is dead" in text
    assert "| 2c | `dvc repro autoencode` |" in text
    assert "There are no bits per dimension: the bound holds for latents." in text
    assert "attends to all positions at 6 \N{MULTIPLICATION SIGN} 6" in text
    assert "√576" in text
    assert (tmp_path / "reports" / "figures" / "reconstructions.webp").exists()


def test_systems_are_compared_by_time_and_the_report_s_words_on_gans_judged(build):
    text = (build() / "page.md").read_text()
    assert "64 images take 1.80 s by the default and 0.06 s by the GAN" in text
    assert "64 images, by DDPM, 1,000 steps: 90.0 s; by a GAN: 0.06 s" in text
    assert "yes, here: 1500 times as long" in text
    others = [row for row in COMPARISON["rows"] if row["system"] != "ancestral_1000"]
    said = (build(comparison={"rows": others}) / "page.md").read_text()
    assert "64 images, by default, 20 steps: 1.8 s; by a GAN: 0.06 s" in said
    assert "yes, here: 30 times as long" in said
    assert "The KID of 1,000 ancestral steps changes by +0.090 [0.040, 0.140] with consistency (seed 0)." in text
    assert "`dvc exp run -S seed=0 -S model=gan -S epochs=12`" in text
    assert "figures/comparison.svg" in text


def test_classes_are_compared_with_one_alone(build):
    text = (build() / "page.md").read_text()
    less = "\N{MINUS SIGN}"
    assert f"alone by +0.030 [{less}0.020, 0.080] (seed 0) and +0.040 [{less}0.010, 0.090] (seed 1). When" in text
    assert "out the churches, their KID differs from that of churches alone by +0.050" in text
    assert "95.0 % (seed 0) of the samples look" in text
    assert "tells the class of 80.0 % (seed 0) of the held-out images; one that has learnt" in text
    assert "from as many training images, of 90.0 %" in text
    assert "| church | 0 | 24,000 |" in text
    assert "KID of its churches, less that of a network of churches alone: +0.010" in text


def test_sizes_are_compared_at_one(build):
    text = (build() / "page.md").read_text()
    less = "\N{MINUS SIGN}"
    assert "Then the KID of 64 pixels is 0.200 (seed 0), of 128 pixels 0.200 (seed 0)." in text
    assert f"from the latter by {less}0.200 [{less}0.250, {less}0.150] (seed 0), and 8.0 times as many images" in text
    assert f"differs from that of pixels by {less}0.100 [{less}0.150, {less}0.050] (seed 0): there" in text
    assert "Decoding alone costs a KID of 0.030 (seed 0), that of one half" in text


def test_without_times_no_time_is_told(build):
    rows = [{**row, "seconds": None} for row in COMPARISON["rows"]]
    text = (build(comparison={"machine": None, "torch": None, "rows": rows}) / "page.md").read_text()
    assert "s by the GAN" not in text
    assert "comparison.svg" not in text
    assert ", 7 and this page |" in text
    assert "None" not in text.partition("Do it again")[0]
    assert "no GAN was trained in this run" in text
