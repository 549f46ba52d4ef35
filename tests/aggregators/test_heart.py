"""The method in four lines, as the documentation shows it."""

from __future__ import annotations

from sfllava import Question, Setting, ask, load_model, read_video


def test_the_method_in_four_lines(videos):
    model, path = load_model("tiny"), videos / "a.mp4"
    setting = Setting(6, "slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2")
    questions = [Question("Which colour flashed?"), Question("Which shape moved?")]

    video = read_video(path, setting.frames)
    grid = model.encode(video.frames)
    tokens = model.tokens(setting, grid, video.pts_seconds)
    answers = model.answer(tokens, questions)

    assert video.frames.shape[0] == 6 and video.frames.shape[3] == 3 and video.frames.dtype == "uint8"
    assert grid.shape[:3] == (6, *model.info.grid)
    assert tokens.embeddings.shape == (setting.token_count(*model.info.grid), grid.shape[3])
    assert [answer.question for answer in answers] == questions
    assert [a.token_ids for a in answers] == [a.token_ids for a in ask(model, video, questions, setting).answers]
