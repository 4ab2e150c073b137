"""The page, its files, settings, saved workflows, pictures and uploads, as a browser asks for them."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient
from kintsugi.core.errors import BadValueError
from kintsugi.headless.node_registry import full_registry
from kintsugi.headless.server import page
from kintsugi.headless.server.node_info import node_info
from kintsugi.headless.server.options import ServerOptions
from kintsugi.headless.server.running import page_address, put_example
from kintsugi.headless.server.security import CONTENT_SECURITY_POLICY, require_token_beyond_loopback
from PIL import Image
from whole_server import INDEX, Place, draw, new_place, whole_server

Client = TestClient[Any, Any]
SCRIPT = "/assets/main-D8pA5qkx.js"


def served(place: Place, visit: Callable[[Client], Awaitable[None]], **options: Any) -> None:
    """Run the visit on a whole server."""

    async def run() -> None:
        async with whole_server(place, **options) as client:
            await visit(client)

    asyncio.run(run())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return new_place(tmp_path / "place")


def test_the_page_is_revalidated_and_its_hashed_files_are_kept_for_ever(place: Place) -> None:
    async def visit(client: Client) -> None:
        first = await client.get("/")
        assert (await first.text(), first.content_type, first.headers["Cache-Control"]) == (INDEX, "text/html", "no-cache")
        assert first.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
        assert (await client.get("/", headers={"If-None-Match": first.headers["ETag"]})).status == 304
        script = await client.get(SCRIPT)
        assert script.content_type == "text/javascript"
        assert "immutable" in script.headers["Cache-Control"]
        assert (await client.get(f"{SCRIPT}.map")).status == 404

    served(place, visit)


def test_static_files_are_compressed_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    compressed, compress = list[int](), gzip.compress

    def counting(content: bytes, **options: Any) -> bytes:
        compressed.append(len(content))
        return compress(content, **options)

    monkeypatch.setattr(page.gzip, "compress", counting)
    place_of_script = place.base / "page" / SCRIPT[1:]

    async def visit(client: Client) -> None:
        for _ in range(3):
            answers = await asyncio.gather(*(client.get(SCRIPT, auto_decompress=False) for _ in range(4)))
            for answer in answers:
                assert answer.headers["Content-Encoding"] == "gzip"
                assert gzip.decompress(await answer.read()) == place_of_script.read_bytes()
        plain = await client.get(SCRIPT, headers={"Accept-Encoding": "identity"})
        assert await plain.read() == place_of_script.read_bytes()

    served(place, visit)
    assert len(compressed) == 1


def test_unknown_routes_answer_with_json(place: Place) -> None:
    async def visit(client: Client) -> None:
        for method in ("GET", "POST", "DELETE", "PATCH"):
            answer = await client.request(method, "/api/nonsense")
            assert answer.status == 404
            assert (await answer.json())["error"]["type"] == "not_found"

    served(place, visit)


def test_settings_begin_with_a_quiet_page_and_are_kept(place: Place) -> None:
    async def change(client: Client) -> None:
        assert await (await client.get("/api/settings")).json() == {
            "Comfy.TutorialCompleted": True,
            "Comfy.Notification.ShowVersionUpdates": False,
        }
        await asyncio.gather(*(client.post(f"/api/settings/number.{index}", json=index) for index in range(20)))
        await client.post("/api/settings", json={"Comfy.TutorialCompleted": False})

    async def look(client: Client) -> None:
        kept = await (await client.get("/api/settings")).json()
        assert kept["Comfy.TutorialCompleted"] is False
        assert [kept[f"number.{index}"] for index in range(20)] == list(range(20))
        assert await (await client.get("/api/settings/number.7")).json() == 7
        assert await (await client.get("/api/settings/unknown")).json() is None

    served(place, change)
    served(place, look)


def test_damaged_settings_begin_anew(place: Place) -> None:
    (place.folder("user") / "default" / "comfy.settings.json").write_text("{")

    async def visit(client: Client) -> None:
        assert (await (await client.get("/settings")).json())["Comfy.TutorialCompleted"] is True

    served(place, visit)


def test_workflows_are_saved_listed_moved_and_deleted(place: Place) -> None:
    async def visit(client: Client) -> None:
        saved = "/api/userdata/workflows%2Fmy%20first.json"
        about = await (await client.post(f"{saved}?overwrite=false&full_info=true", data=b'{"nodes": []}')).json()
        assert (about["path"], about["size"]) == ("workflows/my first.json", 13)
        assert (await client.post(f"{saved}?overwrite=false", data=b"{}")).status == 409
        assert await (await client.post(saved, data=b'{"nodes": [1]}')).json() == "workflows/my first.json"
        assert await (await client.get(saved)).json() == {"nodes": [1]}
        moved = await client.post(f"{saved}/move/workflows%2Fdeep%2Fsecond.json?full_info=true")
        assert (await moved.json())["path"] == "workflows/deep/second.json"
        listing = await (await client.get("/api/userdata?dir=workflows&recurse=true&full_info=true")).json()
        assert [sorted(entry) for entry in listing] == [["created", "modified", "path", "size"]]
        assert listing[0]["path"] == "deep/second.json"
        assert await (await client.get("/userdata?dir=workflows")).json() == []
        assert await (await client.get("/userdata?dir=workflows&recurse=true&split=true")).json() == [
            ["deep/second.json", "deep", "second.json"]
        ]
        assert (await client.delete("/api/userdata/workflows%2Fdeep%2Fsecond.json")).status == 204
        assert (await client.get("/api/userdata/workflows%2Fdeep%2Fsecond.json")).status == 404
        assert (await client.post("/api/userdata/saved.json%2Fbelow.json", data=b"")).status == 409
        assert (await client.post("/api/userdata/workflows", data=b"")).status == 409

    served(place, visit)


def test_what_could_hold_a_script_is_only_a_download(place: Place) -> None:
    names = ["page.html", "script.js", "style.css", "drawing.svg", "page.xhtml", "feed.xml", "no_ending"]
    for name in names:
        (place.folder("output") / name).write_text("<script>alert(1)</script>")
        (place.folder("user") / "default" / name).write_text("<script>alert(1)</script>")

    async def visit(client: Client) -> None:
        for address in (f"{route}{name}" for name in names for route in ("/view?filename=", "/userdata/")):
            answer = await client.get(address)
            assert (answer.content_type, answer.headers["Content-Disposition"]) == ("application/octet-stream", "attachment")
        assert (await client.get("/view?filename=a.png")).content_type == "image/png"

    served(place, visit)


def test_pictures_come_whole_smaller_or_by_channel(place: Place) -> None:
    drawn = draw(place.folder("input") / "sub folder.png", alpha=True)
    (place.folder("temp") / "broken.png").write_bytes(drawn[:60])

    async def picture(client: Client, address: str) -> Image.Image:
        answer = await client.get(address)
        assert answer.status == 200
        return Image.open(io.BytesIO(await answer.read()))

    async def visit(client: Client) -> None:
        address = "/api/view?filename=sub+folder.png&subfolder=&type=input&rand=0.5"
        answer = await client.get(address)
        assert await answer.read() == drawn
        assert (await client.get(address, headers={"If-None-Match": answer.headers["ETag"]})).status == 304
        assert (await client.get("/view?filename=sub+folder.png+[input]")).status == 200
        assert (await picture(client, f"{address}&preview=webp;90")).format == "WEBP"
        assert (await picture(client, f"{address}&preview=jpeg;50&channel=rgb")).format == "JPEG"
        original = Image.open(io.BytesIO(drawn))
        assert (await picture(client, f"{address}&channel=rgb")).tobytes() == original.convert("RGB").tobytes()
        alpha = await picture(client, f"{address}&channel=a")
        assert alpha.getchannel("A").tobytes() == original.getchannel("A").tobytes()
        assert (await client.get("/view?filename=broken.png&type=temp&preview=webp")).status == 400
        assert (await client.head(address)).headers["Content-Length"] == str(len(drawn))

    served(place, visit)


def upload_form(content: bytes, name: str, **fields: str) -> FormData:
    form = FormData()
    form.add_field("image", content, filename=name)
    for field, value in fields.items():
        form.add_field(field, value)
    return form


def test_an_upload_never_takes_the_name_of_other_bytes(place: Place) -> None:
    async def visit(client: Client) -> None:
        async def upload(content: bytes, **fields: str) -> Any:
            return await (await client.post("/api/upload/image", data=upload_form(content, "photo.png", **fields))).json()

        assert await upload(b"one") == {"name": "photo.png", "subfolder": "", "type": "input"}
        assert (await upload(b"one"))["name"] == "photo.png"
        assert (await upload(b"two"))["name"] == "photo (1).png"
        assert (await upload(b"two"))["name"] == "photo (1).png"
        assert (await upload(b"six", overwrite="true"))["name"] == "photo.png"
        assert await upload(b"a", subfolder="clipspace", type="temp") == {"name": "photo.png", "subfolder": "clipspace", "type": "temp"}
        names = {each["name"] for each in await asyncio.gather(*(upload(b"%d" % index) for index in range(5)))}
        assert len(names) == 5
        newest = await (await client.get("/internal/files/input")).json()
        assert set(newest) == {"a.png", "saved.json", "photo.png", "photo (1).png", *names}

    served(place, visit)
    assert (place.folder("input") / "photo.png").read_bytes() == b"six"
    assert (place.folder("temp") / "clipspace" / "photo.png").read_bytes() == b"a"


def test_a_mask_becomes_the_alpha_of_its_picture(place: Place, tmp_path: Path) -> None:
    mask = draw(tmp_path / "mask.png", alpha=True)
    reference = json.dumps({"filename": "a.png", "subfolder": "", "type": "input"})

    async def visit(client: Client) -> None:
        answer = await client.post("/upload/mask", data=upload_form(mask, "masked.png", subfolder="clipspace", original_ref=reference))
        assert await answer.json() == {"name": "masked.png", "subfolder": "clipspace", "type": "input"}
        other = upload_form(draw(tmp_path / "large.png", (40, 40)), "no.png", original_ref=reference)
        assert (await client.post("/upload/mask", data=other)).status == 400

    served(place, visit)
    masked = Image.open(place.folder("input") / "clipspace" / "masked.png")
    assert masked.convert("RGB").tobytes() == Image.open(place.folder("input") / "a.png").tobytes()
    assert masked.getchannel("A").tobytes() == Image.open(tmp_path / "mask.png").getchannel("A").tobytes()


def test_the_pack_brings_scripts_help_templates_and_translations(place: Place) -> None:
    async def visit(client: Client) -> None:
        scripts = await (await client.get("/api/extensions")).json()
        assert "/extensions/Kintsugi/kintsugi.js" in scripts
        for script in scripts:
            assert (await client.get(script)).content_type == "text/javascript"
        assert (await client.get("/extensions/Kintsugi/docs/KintsugiDecode.md")).content_type == "text/markdown"
        assert (await client.get("/docs/LoadImage/en.md")).status == 404
        templates = await (await client.get("/api/workflow_templates")).json()
        assert "restore_photo" in templates["Kintsugi"]
        for name in templates["Kintsugi"]:
            workflow = await client.get(f"/api/workflow_templates/Kintsugi/{name}.json")
            assert "nodes" in await workflow.json()
            assert (await client.get(f"/api/workflow_templates/Kintsugi/{name}.jpg")).content_type == "image/jpeg"
        assert await (await client.get("/templates/index.json")).json() == []
        assert {"en", "zh"} <= set(await (await client.get("/api/i18n")).json())

    served(place, visit)


def test_object_info_is_that_of_the_registry_with_our_nodes_in_the_pack(place: Place) -> None:
    async def visit(client: Client) -> None:
        everything = await (await client.get("/api/object_info")).json()
        assert everything["KintsugiDecode"]["python_module"] == "custom_nodes.Kintsugi"
        assert everything["LoadImage"]["python_module"] == "nodes"
        assert set(everything) == set(node_info(full_registry()))
        draw(place.folder("input") / "new.png")
        one = await (await client.get("/api/object_info/LoadImage")).json()
        assert "new.png" in one["LoadImage"]["input"]["required"]["image"][0]
        assert await (await client.get("/api/object_info/Nonsense")).json() == {}

    served(place, visit)


def test_models_are_listed_and_only_their_headers_read(place: Place) -> None:
    header = json.dumps({"__metadata__": {"made by": "a test"}}).encode()
    (place.folder("models") / "vae" / "small.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)

    async def visit(client: Client) -> None:
        assert "vae" in await (await client.get("/api/models")).json()
        assert "small.safetensors" in await (await client.get("/api/models/vae")).json()
        details = await (await client.get("/api/experiment/models/vae")).json()
        assert {"name", "pathIndex", "modified", "created", "size"} == set(details[0])
        said = await (await client.get("/api/view_metadata/vae?filename=small.safetensors")).json()
        assert said == {"made by": "a test"}
        assert await (await client.get("/api/embeddings")).json() == []
        assert "vae" in await (await client.get("/internal/folder_paths")).json()

    served(place, visit)


def test_small_answers_have_the_form_that_the_page_expects(place: Place) -> None:
    async def visit(client: Client) -> None:
        assert await (await client.get("/api/users")).json() == {"storage": "server", "migrated": True}
        assert (await (await client.get("/api/features")).json())["max_upload_size"] == ServerOptions(Path()).upload_limit
        system = (await (await client.get("/api/system_stats")).json())["system"]
        assert "--disable-api-nodes" in system["argv"]
        assert set(await (await client.get("/internal/logs/raw")).json()) == {"entries", "size"}
        assert (await client.patch("/internal/logs/subscribe", json={"clientId": "a", "enabled": True})).status == 200
        for address in ("/user.css", "/api/userdata/user.css"):
            assert (await client.get(address)).content_type == "text/css"

    served(place, visit)


def test_the_token_in_the_address_becomes_a_cookie(place: Place) -> None:
    async def visit(client: Client) -> None:
        assert (await client.get("/")).status == 401
        assert (await client.get("/users?token=secret+word")).status == 401
        entered = await client.get("/?token=secret+word", allow_redirects=False)
        assert (entered.status, entered.headers["Location"]) == (303, "./")
        cookie = entered.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "secret" not in cookie
        name_and_value = {"Cookie": cookie.partition(";")[0]}
        client.session.cookie_jar.clear()
        assert (await client.get("/users")).status == 401
        assert (await client.get("/users", headers=name_and_value)).status == 200
        assert (await client.get("/users", headers={"Authorization": "Bearer secret word"})).status == 200

    served(place, visit, token="secret word")


@pytest.mark.parametrize("listen", ["0.0.0.0", "::", "192.168.1.5", "photo-server"])
def test_others_are_let_in_only_with_a_token(listen: str) -> None:
    with pytest.raises(BadValueError, match="--token"):
        require_token_beyond_loopback(ServerOptions(Path(), listen=("127.0.0.1", listen)))
    require_token_beyond_loopback(ServerOptions(Path(), listen=(listen,), token="word"))
    require_token_beyond_loopback(ServerOptions(Path(), listen=("127.0.0.1", "::1", "localhost")))


def test_other_names_are_answered_when_they_were_allowed(place: Place) -> None:
    async def visit(client: Client) -> None:
        assert (await client.get("/users", headers={"Host": "Photos.example:80"})).status == 200
        assert (await client.get("/users", headers={"Host": "192.168.1.5:8188"})).status == 200
        assert (await client.get("/users", headers={"Host": "other.example"})).status == 403
        entering = {"Host": "photos.example", "Origin": "https://photos.example"}
        assert (await client.get("/users", headers=entering)).status == 200

    served(place, visit, listen=("0.0.0.0",), allowed_hosts=("photos.example",))


def test_the_address_is_one_that_this_machine_can_open() -> None:
    assert page_address(ServerOptions(Path()), 8188) == "http://127.0.0.1:8188/"
    assert page_address(ServerOptions(Path(), listen=("0.0.0.0",), token="a b"), 1) == "http://127.0.0.1:1/?token=a%20b"
    assert page_address(ServerOptions(Path(), listen=("::1",)), 1) == "http://[::1]:1/"


def test_an_empty_input_folder_gets_the_photo_of_the_shipped_workflows(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    put_example(folder)
    with Image.open(folder / "example.png") as example:
        assert example.format == "PNG"
    (folder / "example.png").rename(folder / "mine.png")
    put_example(folder)
    assert [path.name for path in folder.iterdir()] == ["mine.png"]
