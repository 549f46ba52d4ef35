"""Downloads of six benchmarks whose modules are written elsewhere: each entry moves into its benchmark's `SPEC`.

What was checked, without a connection to the servers: the SHA-256 of every question file but MVBench's, from the
published files themselves; that the two GitHub repositories have them at these commits (from clones); that the hub's
pages list the revisions, paths and SHA-256 here. No address was tried.
"""

from __future__ import annotations

from sfllava.benchmarks.nextqa import VIDEOS_FILE
from sfllava.benchmarks.remote_files import Downloads, RemoteFile, Videos, github_url, hub_url

# --- videomme: the revision is the head of main as its list of commits had it, and the one with the last video archive
_VIDEOMME = "ead1408f75b618502df9a1d8e0950166bf0a2a0b"
_VIDEOMME_SHA256 = (  # of videos_chunked_01.zip to _20.zip; the 4th is not known here, the hub states it
    "3076173e26febbecd3c44eba36b6c3da883f16467812a913f0953e98298b50f6",
    "db6b99129aaf6c0b049a47178718cec03e819e2cbfc3083b7ad1402f58d7c36e",
    "6daab383dd797577b31eba72e90f05acc9956126a93840f7451ca01cb4d89641",
    "",
    "3ecc6b55bdf4025f0eff75a22b8749bd416dd6659915b2bddf203c2b6fcba999",
    "162507ba54f38c2c7f7e4cc9d6d963ef6b9f26579c64e36843f6491f043191dc",
    "ba40a267c0cc5dd322ebc1d7c87d064c62250c34d92faead5ce497adca2228e3",
    "954c02a9e88d59b6d26f7d72e5c1a6599214105f48a28b442d9aac3aeca4b3f7",
    "5f06a43ac518437ea0012aabacc8c959a3b103907f2dad71f31fb96ff712d3c0",
    "4997d3a2eb94cc80f082af0847c79255f132d6137b99b040fa056bb737e4dd1a",
    "de0c93afc2eca50c38f9a0f9674fd763c82ce639a1cf26dc74a72c02e87834fe",
    "bc9c4a6072de70e0024e854470c8db26c12bfdfc1c3ba3f3053bb36b73363504",
    "b5a263c966384393a3d90dfe64bc960ccf4cc257c7a93ab02769b2039afa05e0",
    "dbf9c5be8cb20f14435171e2f232c1e16627d9d3a52ddaaca3805f3e11916f1e",
    "ecb2a6eebf2cdd6bef8c6ddb349e1acef48677be886dc3637a5e5a65e45e46aa",
    "5c71bdf703c1081db373f9eb3dc568147117e555327e8c8b0b749b1d56d81c16",
    "24ee556b6214127d541e660ca1ffe21e8feea0df8f3f9504f3cd028736ee1b10",
    "eac78a739fd26681bf4bac6a405215ed81b80e154b15203376e9de2b67077c81",
    "16f9a49b7edb100e10390e48371ca9bc58c88235191361e176455a41feacdb68",
    "45ffc49a8600b856aa02ea05b35da970c250a5790f7d7da123e5795ff0e27171",
)
_VIDEOMME_SUBTITLES_SHA256 = "a2ee50c5912d23301ddf2c5036c19c4ac4eb2116cd9874aeecd026c4eff45a34"


def _videomme_archive(name: str, sha256: str) -> RemoteFile:
    return RemoteFile(
        f"videomme/{name}", hub_url("lmms-lab/Video-MME", _VIDEOMME, name), sha256=sha256, unpack="videomme"
    )


_VIDEOMME_DOWNLOADS = Downloads(
    questions=(
        RemoteFile(
            "videomme/test-00000-of-00001.parquet",
            hub_url("lmms-lab/Video-MME", _VIDEOMME, "videomme/test-00000-of-00001.parquet"),
            405_167,
            "7fffab8ed38ecc2f9f0eca4c44d8a11636f0ee96116ede83580c8b9ae0faf986",
        ),
    ),
    licence="academic research only; no distribution without approval (the authors' README)",
    videos=Videos(
        licence="academic research only; the videos belong to their owners, no distribution without approval",
        place="https://huggingface.co/datasets/lmms-lab/Video-MME",
        size="about 101 GB in 20 archives, and 7.5 MB of subtitles",
        # in the archives: data/ID.mp4 and subtitle/ID.srt (as others' instructions say)
        files=(
            _videomme_archive("subtitle.zip", _VIDEOMME_SUBTITLES_SHA256),
            *(_videomme_archive(f"videos_chunked_{i:02}.zip", sha) for i, sha in enumerate(_VIDEOMME_SHA256, 1)),
        ),
    ),
)

# --- longvideobench: its data set wants a login and accepted terms, so a full revision could not be read: "main", where
# the SHA-256 pins the contents
_LONGVIDEOBENCH_DOWNLOADS = Downloads(
    questions=(
        RemoteFile(
            "longvideobench/validation-00000-of-00001.parquet",
            hub_url("longvideobench/LongVideoBench", "main", "validation-00000-of-00001.parquet"),
            426_680,
            "5f370287edbfb9875562b116686d50208d0d40615f5b407f970448868b6bc108",
        ),
    ),
    licence="CC BY-NC-SA 4.0; accept the terms on the hub's page, then `hf auth login`",
    videos=Videos(
        licence="CC BY-NC-SA 4.0, not for commercial use; the videos belong to their owners; terms to accept",
        place="https://huggingface.co/datasets/longvideobench/LongVideoBench",
        size="162 GB, one tar in 31 pieces (videos.tar.part.*), and 117 MB of subtitles",
    ),
)

# --- mlvu: the hub's page of main lists mlvu/test-00000-of-00001.parquet with the size of this file; its last commit is
# known by the short name 96207eb only, so "main", where the SHA-256 pins the contents
_MLVU_DOWNLOADS = Downloads(
    questions=(
        RemoteFile(
            "mlvu/mlvu_dev.parquet",
            hub_url("sy1998/MLVU_dev", "main", "mlvu/test-00000-of-00001.parquet"),
            204_082,
            "1653e54475de8d8ca44cb477542eb5c3072c2897fe001bff90934d825a67b475",
        ),
    ),
    licence="CC BY-NC-SA 4.0 (the authors' MLVU/MVLU)",
    videos=Videos(
        licence="CC BY-NC-SA 4.0, academic research only; the videos belong to their owners; terms to accept",
        place="https://huggingface.co/datasets/MLVU/MVLU",
        size="hundreds of GB (unchecked)",
    ),
)

# --- mvbench: sizes and SHA-256 of the question files are not known here, so the revision pins them
_MVBENCH = "230a2d4fac8900333c61754641c7a13e069ac9c6"
_MVBENCH_TASKS = (
    "action_antonym", "action_count", "action_localization", "action_prediction", "action_sequence", "character_order",
    "counterfactual_inference", "egocentric_navigation", "episodic_reasoning", "fine_grained_action",
    "fine_grained_pose", "moving_attribute", "moving_count", "moving_direction", "object_existence",
    "object_interaction", "object_shuffle", "scene_transition", "state_change", "unexpected_action",
)  # fmt: skip
_MVBENCH_SHA256 = {  # of video/NAME.zip; tvqa's is not known here, the hub states it
    "FunQA_test": "d6ef954652c2a1b48fb772d52c97da35dc7f8b54e5bdf4b43ba4f773ed726723",
    "Moments_in_Time_Raw": "16add0d03cbb7c6b76974551879f7dc8a7ce985b89699a2231136b81d3ba9967",
    "clevrer": "9040ad663440611bd8580fc0fc3da31bd1a4bfef877631db7b570a7d7d41de1c",
    "data0613": "f045863b2ccf7f32ada437d72529fea1c026fc015a7df548f703c22b71a24962",
    "perception": "98fc197a90c875fb24f34fe89cb91e2788e1e7ac2459bf860ed62d9f07104b34",
    "scene_qa": "26b3dc385e5a8f7b8fd9aab32a3522488fdfe7bbe06f0d98206d43647c77cce9",
    "ssv2_video": "8493fe3762bdc205b587c4d02e016f9ccbb314b523ed0bf2c5bdbe367456d1e9",
    "sta": "4c27cbf62bbc1b0217b5183871f298e7a76b2a498dd4482365c617f25338de9a",
    "star": "bdb5f192a98f78e79e51da6ae801f8ba79d1d09c0d8c19b6e63105251cb17585",
    "tvqa": "",
    "vlnqa": "578f9edf2973560ac0d79990d9a2961ccae8edcdb1cb0be2c3bf15045f04428a",
}
_MVBENCH_DOWNLOADS = Downloads(
    questions=tuple(
        RemoteFile(f"mvbench/json/{task}.json", hub_url("OpenGVLab/MVBench", _MVBENCH, f"json/{task}.json"))
        for task in _MVBENCH_TASKS
    ),
    licence="MIT (the hub's page)",
    videos=Videos(
        licence="of several data sets, each with its own licence; NTU RGB+D's are not in them: ask its authors",
        place="https://huggingface.co/datasets/OpenGVLab/MVBench",
        size="17 GB in 11 archives",
        files=tuple(
            RemoteFile(
                f"mvbench/video/{name}.zip",
                hub_url("OpenGVLab/MVBench", _MVBENCH, f"video/{name}.zip"),
                sha256=sha256,
                unpack="mvbench/video",
            )
            for name, sha256 in _MVBENCH_SHA256.items()
        ),
    ),
)

# --- tempcompass: questions at the head of the repository, videos at the head of the hub's data set
_TEMPCOMPASS = "e1b463166400633e6061962d890a9ae85db29f70"
_TEMPCOMPASS_DOWNLOADS = Downloads(
    questions=tuple(
        RemoteFile(f"tempcompass/{path}", github_url("llyx97/TempCompass", _TEMPCOMPASS, path), size, sha256)
        for path, size, sha256 in (
            (
                "questions/multi-choice.json",
                441_771,
                "c5bbdd249bbeca2d8fc70adec639509d8b9cb6d0bb3edfe4b838477a5efc3bbd",
            ),
            ("questions/yes_no.json", 405_703, "f10910c595a30aff3104c48b9cddcd88e71d512ba14dd7eff77d30e39807768d"),
            (
                "questions/caption_matching.json",
                524_731,
                "ef8038edfbcd713e14a361cb617bc4fe815e3cafffe003cc024bcac86c9d764d",
            ),
            (
                "questions/captioning.json",
                1_500_847,
                "49815114d9753ab26a63d410892950fb4577b4def096e7e4e523ac91fb98f1eb",
            ),
            ("meta_info.json", 190_924, "72144a7cb5aba97d12c3148ec734f7c8f27a04f6b3a7396ef41003a0a7178419"),
        )
    ),
    licence="CC BY-NC 4.0, academic research only",
    videos=Videos(
        licence="CC BY-NC 4.0, academic research only",
        place="https://huggingface.co/datasets/lmms-lab/TempCompass",
        size="418 MB",
        files=(
            RemoteFile(
                "tempcompass/tempcompass_videos.zip",
                hub_url("lmms-lab/TempCompass", "c8a67d88a3bc6fd4b2f9ae2f9e112668fbe05722", "tempcompass_videos.zip"),
                418_421_516,
                "fb7c8a2b742a3d10ae1bd1a6183fb602edb346a4c7fd91c631dba46b753e0f0b",
                unpack="tempcompass",  # in the archive: videos/ID.mp4 (as others' code expects)
            ),
        ),
    ),
)

# --- nextgqa: the videos are NExT-QA's
_NEXTGQA = "63772e0256ad9e34b83d6a108f1ba2041b924607"
_NEXTGQA_DOWNLOADS = Downloads(
    questions=tuple(
        RemoteFile(
            f"nextgqa/{name}", github_url("doc-doc/NExT-GQA", _NEXTGQA, f"datasets/nextgqa/{name}"), size, sha256
        )
        for name, size, sha256 in (
            ("val.csv", 638_860, "ac5a1eb1d6dee9cd84ab7f9c94ab345b2404646f24b79ac182cd2aa9e2d424c1"),
            ("test.csv", 1_052_149, "0443ede53f521de4cbfb5e4fb02253926b90f81f62041b18bd17207a3511d114"),
            ("gsub_val.json", 115_228, "4feb23e53102cb2d4779e857ff8f9fd9b552fc38435621406b2ed9b0bf76204b"),
            ("gsub_test.json", 195_500, "0c16c31699238a0f2b8ace45aeed7f193149ce2f011d6ed4f1ef7170ef5d41e9"),
        )
    ),
    licence="MIT",
    videos=Videos(
        licence="videos of Flickr (by VidOR and YFCC100M) under Creative Commons licences (unchecked)",
        place="https://huggingface.co/datasets/lmms-lab/NExTQA",
        size="6.5 GB",
        files=(VIDEOS_FILE,),
    ),
)

PENDING: dict[str, Downloads] = {
    "videomme": _VIDEOMME_DOWNLOADS,
    "longvideobench": _LONGVIDEOBENCH_DOWNLOADS,
    "mlvu": _MLVU_DOWNLOADS,
    "mvbench": _MVBENCH_DOWNLOADS,
    "tempcompass": _TEMPCOMPASS_DOWNLOADS,
    "nextgqa": _NEXTGQA_DOWNLOADS,
}
