from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from kintsugi.core.errors import BadValueError, PictureError
from kintsugi.core.imaging import reading
from kintsugi.core.imaging.icc import matrix_profile
from kintsugi.core.imaging.photo import BitDepth, PhotoDetails
from kintsugi.core.imaging.reading import read_photo
from kintsugi.core.imaging.writing import write_photo
from PIL import Image, ImageCms, ImageOps

RNG = np.random.default_rng(7)
COLOUR = RNG.integers(0, 256, (9, 7, 4), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (9, 7, 4), dtype=np.uint16)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def tensor(samples: np.ndarray, white: int = 255) -> torch.Tensor:
    return torch.from_numpy(samples.astype(np.float32) / white)


def levels(values: torch.Tensor, white: int = 255) -> np.ndarray:
    return np.rint(values.numpy() * white).astype(np.int64)


def png(samples: np.ndarray, colour_type: int, extra: bytes = b"") -> bytes:
    """A 16-bit PNG by hand, so that reading is not tested against our own writing."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def matrix_icc(gamma: float, primaries: list[tuple[float, float, float]]) -> bytes:
    """A colour profile of one gamma and three D50 colorants: the kind that Adobe RGB is."""
    xyz = [b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in colorant)) for colorant in primaries]
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags = [(b"rXYZ", xyz[0]), (b"gXYZ", xyz[1]), (b"bXYZ", xyz[2]), (b"wtpt", white), (b"rTRC", curve), (b"gTRC", curve), (b"bTRC", curve)]
    table, data, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, body in tags:
        table += struct.pack(">4sII", name, offset + len(data), len(body))
        data += body
    size = 128 + len(table) + len(data)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ").ljust(36, b"\0") + b"acsp"
    header = header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + data


ADOBE = matrix_icc(563 / 256, [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)])


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.avif", "a.tif"])
def test_eight_bit_colour_comes_back_from_every_format(name: str, tmp_path: Path) -> None:
    smooth = np.linspace(20, 220, 32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)
    write_photo(tmp_path / name, tensor(smooth), quality=100)
    photo = read_photo(tmp_path / name)
    assert photo.picture.shape == (1, 32, 32, 3) and photo.picture.dtype == torch.float32
    assert np.abs(levels(photo.picture[0]) - smooth).max() <= {"a.jpg": 3, "a.avif": 3}.get(name, 0)
    assert photo.details.name == name and photo.details.bit_depth == 8 and photo.alpha is None


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.avif", "a.tiff"])
def test_alpha_comes_back_straight(name: str, tmp_path: Path) -> None:
    flat = np.broadcast_to(np.array([200, 100, 50, 128], dtype=np.uint8), (16, 16, 4))
    write_photo(tmp_path / name, tensor(flat[..., :3]), tensor(flat[..., 3]), quality=100)
    photo = read_photo(tmp_path / name)
    assert photo.alpha is not None and photo.alpha.shape == (1, 16, 16)
    found = np.concatenate([levels(photo.picture[0]), levels(photo.alpha[0])[..., None]], axis=2)
    assert np.abs(found - flat).max() <= (2 if name == "a.avif" else 0)


def test_written_values_are_rounded_not_truncated(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.png", torch.full((2, 2, 3), 100.6 / 255))
    assert (np.asarray(Image.open(tmp_path / "a.png")) == 101).all()


@pytest.mark.parametrize(
    ("name", "channels"), [("a.png", 3), ("a.png", 4), ("a.png", 1), ("a.png", 2), ("a.tif", 3), ("a.tif", 4), ("a.tif", 1)]
)
def test_sixteen_bit_files_are_exact_both_ways(name: str, channels: int, tmp_path: Path) -> None:
    colour = DEEP[..., :3] if channels > 2 else np.repeat(DEEP[..., :1], 3, axis=2)
    alpha = tensor(DEEP[..., 3], 65535) if channels in (2, 4) else None
    details = PhotoDetails(bit_depth=16, grey=channels <= 2, icc=SRGB)
    write_photo(tmp_path / name, tensor(colour, 65535), alpha, details)
    photo = read_photo(tmp_path / name)
    assert (levels(photo.picture[0], 65535) == colour).all()
    assert photo.details.bit_depth == 16 and photo.details.icc == SRGB
    assert (photo.alpha is None) == (alpha is None)
    if photo.alpha is not None:
        assert (levels(photo.alpha[0], 65535) == DEEP[..., 3]).all()


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bit_png_of_others_is_not_cut_to_eight(colour_type: int, channels: int, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(DEEP[..., :channels], colour_type))
    photo = read_photo(tmp_path / "a.png")
    colours = 1 if channels <= 2 else 3
    assert (levels(photo.picture[0], 65535) == DEEP[..., :colours]).all()
    assert photo.details.grey == (colours == 1)
    if channels in (2, 4):
        assert photo.alpha is not None and (levels(photo.alpha[0], 65535) == DEEP[..., channels - 1]).all()


def test_transparent_colour_of_a_sixteen_bit_png_becomes_alpha(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(DEEP[..., :3], 2, chunk(b"tRNS", DEEP[2, 3, :3].astype(">u2").tobytes())))
    alpha = read_photo(tmp_path / "a.png").alpha
    assert alpha is not None and alpha[0, 2, 3] == 0 and alpha.sum() == 9 * 7 - 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bit_tiff_of_others_is_not_cut_to_eight(order: str, compression: str | None, channels: int, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    options = {"photometric": "minisblack" if channels == 1 else "rgb", "extrasamples": ["unassalpha"] if channels == 4 else None}
    samples = DEEP[..., 0] if channels == 1 else DEEP[..., :channels]
    tifffile.imwrite(tmp_path / "a.tif", samples, byteorder=order, compression=compression, **options)
    photo = read_photo(tmp_path / "a.tif")
    assert (levels(photo.picture[0], 65535) == DEEP[..., : min(channels, 3)]).all()
    if channels == 4:
        assert photo.alpha is not None and (levels(photo.alpha[0], 65535) == DEEP[..., 3]).all()


def test_sixteen_bit_tiff_with_white_as_zero_is_read_as_positive(tmp_path: Path) -> None:
    pytest.importorskip("tifffile").imwrite(tmp_path / "a.tif", DEEP[..., 0], photometric="miniswhite")
    assert (levels(read_photo(tmp_path / "a.tif").picture[0, ..., 0], 65535) == 65535 - DEEP[..., 0].astype(int)).all()


def test_our_sixteen_bit_tiff_is_read_by_another_library(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    exif = Image.Exif()
    exif[0x010F], exif[0x8769] = "Maker", {0x829A: 0.01}
    details = PhotoDetails(bit_depth=16, icc=SRGB, exif=exif.tobytes())
    write_photo(tmp_path / "a.tif", tensor(DEEP[..., :3], 65535), tensor(DEEP[..., 3], 65535), details)
    assert (tifffile.imread(tmp_path / "a.tif") == DEEP).all()
    kept = Image.Exif()
    kept.load(read_photo(tmp_path / "a.tif").details.exif)
    assert kept[0x010F] == "Maker" and float(kept.get_ifd(0x8769)[0x829A]) == 0.01


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.avif", "deep.png"])
def test_exif_orientation_is_applied_and_reset(name: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    blocks = np.kron(COLOUR[:2, :3, :3], np.ones((16, 16, 1), dtype=np.uint8))
    if name == "deep.png":
        write_photo(tmp_path / name, tensor(blocks), details=PhotoDetails(bit_depth=16, exif=exif.tobytes()))
    else:
        Image.fromarray(blocks).save(tmp_path / name, exif=exif, quality=100)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / name)).convert("RGB"))
    photo = read_photo(tmp_path / name)
    assert (np.abs(levels(photo.picture[0]) - expected.astype(int)) <= 1).all()
    kept = Image.Exif()
    kept.load(photo.details.exif)
    assert kept[0x0112] == 1 and kept[0x010F] == "Maker"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_tiff_orientation_is_applied_once(orientation: int, kind: type, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    samples = DEEP[:4, :6, :3].astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = [np.asarray(ImageOps.exif_transpose(with_exif(samples[..., c].astype(np.int32), exif))) for c in range(3)]
    expected = np.stack(upright, axis=-1)
    assert (levels(read_photo(tmp_path / "a.tif").picture[0], np.iinfo(kind).max) == expected).all()


def with_exif(plane: np.ndarray, exif: Image.Exif) -> Image.Image:
    image = Image.fromarray(plane)
    image.getexif()[0x0112] = exif[0x0112]
    return image


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_kind_of_pixel_becomes_rgb(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR[..., :3]).convert(mode)
    name = "a.tif" if mode == "CMYK" else "a.png"
    image.save(tmp_path / name)
    photo = read_photo(tmp_path / name)
    assert (levels(photo.picture[0]) == np.asarray(image.convert("RGB"))).all()
    assert photo.details.grey == (mode in ("1", "L", "LA"))
    assert (photo.alpha is not None) == (mode in ("LA", "RGBA"))


@pytest.mark.parametrize("name", ["a.bmp", "a.gif"])
def test_formats_that_are_only_read_are_written_as_png(name: str, tmp_path: Path) -> None:
    Image.new("RGB", (4, 3), (10, 20, 30)).save(tmp_path / name)
    photo = read_photo(tmp_path / name)
    assert levels(photo.picture[0, 0, 0]).tolist() == [10, 20, 30] and photo.details.format == "png"


def test_palette_transparency_becomes_alpha(tmp_path: Path) -> None:
    image = Image.new("P", (4, 2), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 1), 1)
    image.save(tmp_path / "a.png", transparency=b"\x00\x80")
    photo = read_photo(tmp_path / "a.png")
    assert photo.alpha is not None and levels(photo.alpha[0, 1]).tolist() == [0, 128, 0, 0]
    assert levels(photo.picture[0, 1, 1]).tolist() == [40, 50, 60]


def test_grey_stays_grey_and_one_pixel_is_a_picture(tmp_path: Path) -> None:
    Image.new("L", (1, 1), 77).save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    write_photo(tmp_path / "b.png", photo.picture, details=photo.details)
    again = Image.open(tmp_path / "b.png")
    assert again.mode == "L" and again.getpixel((0, 0)) == 77


def test_foreign_profile_is_converted_to_srgb_and_back(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR[..., :3] // 4 + 96)  # inside sRGB: what lies outside is clipped
    image.save(tmp_path / "a.png", icc_profile=ADOBE)
    photo = read_photo(tmp_path / "a.png")
    assert np.abs(levels(photo.picture[0]) - np.asarray(image)).max() > 5
    write_photo(tmp_path / "b.png", photo.picture, details=photo.details)
    written = Image.open(tmp_path / "b.png")
    assert written.info["icc_profile"] == ADOBE
    assert np.abs(np.asarray(written).astype(int) - np.asarray(image)).max() <= 3


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_foreign_profile_is_converted_in_float(name: str, tmp_path: Path) -> None:
    eight = COLOUR[..., :3] // 4 + 96  # inside sRGB: what lies outside is clipped
    wide = PhotoDetails(bit_depth=16, icc=ADOBE)
    Image.fromarray(eight).save(tmp_path / "eight.png", icc_profile=ADOBE)
    srgb = read_photo(tmp_path / "eight.png").picture
    write_photo(tmp_path / name, srgb, details=wide)
    photo = read_photo(tmp_path / name)
    assert photo.details.icc == ADOBE and photo.details.bit_depth == 16
    assert (photo.picture - srgb).abs().max() <= 2 / 65535
    raw = reading.kornia_samples(tmp_path / name)
    assert np.abs(raw / 257 - eight).max() <= 3, "the stored values must be the profile's, as LittleCMS reads them"


def table_icc() -> bytes:
    """A profile that maps through a 2 x 2 x 2 table, as camera and printer profiles do (lut16Type)."""
    corners = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), -1).reshape(8, 3)
    xyz = np.clip(corners @ np.array([[0.3, 0.1, 0.02], [0.4, 0.8, 0.08], [0.26, 0.1, 0.72]]) * 32768, 0, 65535).astype(">u2").tobytes()
    ramps = struct.pack(">6H", *(0, 65535) * 3)
    identity = struct.pack(">9i", *(65536 * value for value in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    lut = b"mft2\0\0\0\0" + bytes([3, 3, 2, 0]) + identity + struct.pack(">2H", 2, 2) + ramps + xyz + ramps
    matrix = matrix_icc(1.4, [(0.5, 0.3, 0.0), (0.3, 0.6, 0.1), (0.16, 0.1, 0.7)])
    entry = matrix.index(b"wtpt")
    moved = matrix[:entry] + struct.pack(">4sII", b"A2B0", len(matrix), len(lut)) + matrix[entry + 12 :] + lut
    return struct.pack(">I", len(moved)) + moved[4:]


def test_table_profile_is_converted_at_eight_bits_and_refused_at_sixteen(tmp_path: Path) -> None:
    Image.fromarray(COLOUR[..., :3]).save(tmp_path / "eight.png", icc_profile=table_icc())
    assert np.abs(levels(read_photo(tmp_path / "eight.png").picture[0]) - COLOUR[..., :3]).max() > 5
    (tmp_path / "a.png").write_bytes(png(DEEP[..., :3], 2, chunk(b"iCCP", b"x\0\0" + zlib.compress(table_icc()))))
    with pytest.raises(PictureError, match=r"a\.png.*tables"):
        read_photo(tmp_path / "a.png")


def test_broken_profile_is_told_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(COLOUR[..., :3]).save(tmp_path / "a.png", icc_profile=b"not a profile")
    photo = read_photo(tmp_path / "a.png")
    assert (levels(photo.picture[0]) == COLOUR[..., :3]).all() and photo.details.icc is None
    assert "profile" in caplog.text


@pytest.mark.parametrize("depth", [8, 16])
def test_png_carries_prompt_and_workflow(depth: BitDepth, tmp_path: Path) -> None:
    texts = {"prompt": '{"1": {}}', "workflow": '{"nodes": ["ü"]}'}
    write_photo(tmp_path / "a.png", tensor(COLOUR[..., :3]), bit_depth=depth, metadata=texts)
    image = Image.open(tmp_path / "a.png")
    image.load()
    assert {name: image.info[name] for name in texts} == texts


def test_webp_carries_prompt_and_workflow_as_comfyui_does(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.webp", tensor(COLOUR[..., :3]), metadata={"workflow": '{"a": 1}', "prompt": "{}", "more": "[]"})
    exif = Image.open(tmp_path / "a.webp").getexif()
    assert (exif[0x0110], exif[0x010F], exif[0x010E]) == ("prompt:{}", 'workflow:{"a": 1}', "more:[]")


@pytest.mark.parametrize("name", ["a.jpg", "a.avif", "a.tif"])
def test_other_formats_carry_the_workflow_and_keep_the_camera(name: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    write_photo(tmp_path / name, tensor(COLOUR[..., :3]), details=PhotoDetails(exif=exif.tobytes()), metadata={"prompt": "{}"})
    found = Image.open(tmp_path / name).getexif()
    assert found[0x010F] == "Maker" and b'{"prompt": "{}"}' in bytes(found.get_ifd(0x8769)[0x9286])


def test_parametric_srgb_profile_is_the_identity() -> None:
    profile = matrix_profile(SRGB)
    assert profile is not None
    samples = 0.2 + 0.6 * RNG.random((5, 6, 3), dtype=np.float32)  # the steep dark end magnifies the profile's own rounding
    tenth_of_a_grey_level = 0.1 / 255
    assert np.abs(profile.to_srgb(samples) - samples).max() < tenth_of_a_grey_level
    assert np.abs(profile.from_srgb(samples) - samples).max() < tenth_of_a_grey_level


def grey_icc(gamma: float) -> bytes:
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    table = struct.pack(">I4sII4sII", 2, b"wtpt", 156, 20, b"kTRC", 176, 16)
    header = ADOBE[4:16] + b"GRAY" + ADOBE[20:128]
    return struct.pack(">I", 192) + header + table + white + curve


@pytest.mark.parametrize("depth", [8, 16])
def test_grey_profile_is_converted_and_carried_by_grey_files_only(depth: BitDepth, tmp_path: Path) -> None:
    profile, details = grey_icc(1.8), PhotoDetails(icc=grey_icc(1.8), grey=True, bit_depth=depth)
    ramp = torch.linspace(0.05, 1, 48).view(4, 12, 1).expand(4, 12, 3)
    write_photo(tmp_path / "a.png", ramp, details=details)
    Image.open(tmp_path / "a.png").load()
    photo = read_photo(tmp_path / "a.png")
    assert photo.details.icc == profile and (photo.picture[0] - ramp).abs().max() < (0.006 if depth == 8 else 3e-4)
    assert np.abs(np.asarray(Image.open(tmp_path / "a.png")).astype(float) / (2**depth - 1) - ramp[..., 0].numpy()).max() > 0.02
    write_photo(tmp_path / "b.webp", photo.picture, details=details, quality=100)
    again = read_photo(tmp_path / "b.webp")
    assert again.details.icc is None and (again.picture[0] - ramp).abs().max() < 0.01


def test_sixteen_bit_source_becomes_eight_bit_in_a_format_without(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.jpg", tensor(COLOUR[..., :3]), details=PhotoDetails(bit_depth=16))
    assert read_photo(tmp_path / "a.jpg").details.bit_depth == 8
    with pytest.raises(BadValueError):
        write_photo(tmp_path / "b.jpg", tensor(COLOUR[..., :3]), bit_depth=16)
