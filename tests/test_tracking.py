"""Trackers: SAM2 equals the official predictor; both trackers keep the protocol; faults are refused."""

import numpy as np
import pytest

from stvg_nb.flow import box_mask, carry, match_tracks
from stvg_nb.flow_tracker import FlowTracker
from stvg_nb.foundations.files import InputError
from stvg_nb.foundations.masks import mask_box, mask_iou
from stvg_nb.sam2_tracker import Sam2Tracker, check_sam2, count_work, load_sam2, official_tracks
from stvg_nb.sessions import FrameStore, drive, work_of

H, W = 60, 80


def scene(T, seed=0, n=4):
    "Textured squares, later ones in front: frames, visible masks (n, T, H, W)."
    rng = np.random.default_rng(seed)
    ground, looks = (
        rng.integers(60, 120, (H, W, 3)).astype(np.uint8),
        rng.integers(0, 256, (n, 1, 1, 3)) * 3 // 4 + rng.integers(0, 64, (n, 16, 14, 3)),
    )
    frames, masks = np.repeat(ground[None], T, 0), np.zeros((n, T, H, W), bool)
    for t in range(T):
        for k in range(n):
            x, y = 4 + 17 * k + (t if k % 2 == 0 else -t) // 2, 5 + 9 * k + t // 3
            frames[t, y : y + 16, x : x + 14] = looks[k]
            masks[:k, t, y : y + 16, x : x + 14] = False
            masks[k, t, y : y + 16, x : x + 14] = True
    return frames, masks


def _run(tracker, frames, prompts, **options):
    "{(frame, id): mask or logits}, counts."
    found, session = drive(tracker, frames, prompts, **options)
    return found, session.counts


def official(model, frames, prompts, **options):
    return {(f, id): x for f, id, x in official_tracks(model, frames, prompts, **options)}


def assert_equal(a, b):
    assert set(a) == set(b)
    assert max(np.abs(a[k] - b[k]).max() for k in a) < 1e-4
    assert np.mean([((a[k] > 0) != (b[k] > 0)).mean() for k in a]) < 1e-6


def mixed(masks, T):
    return {
        0: {1: masks[0, 0], 2: mask_box(masks[1, 0])},
        T // 3: {3: masks[2, T // 3]},
        2 * T // 3: {4: mask_box(masks[3, 2 * T // 3])},
    }


@pytest.fixture(scope="module")
def tiny():
    return load_sam2("sam2.1_hiera_t", image_size=128)


# SAM2 against the official predictor ------------------------------------------------------------
def test_equal_to_official_at_256():
    "Mask and box prompts, three arrivals, both directions; then with objects that vanish."
    model, T = load_sam2("sam2.1_hiera_t", image_size=256), 8
    frames, masks = scene(T)
    prompts = mixed(masks, T)
    with count_work(model) as slow:
        expected = official(model, frames, prompts)
    with count_work(model) as fast:
        found, counts = _run(Sam2Tracker(model=model), frames, prompts, logits=True)
    assert_equal(expected, found)
    assert slow == work_of("competent", T, {f: len(p) for f, p in prompts.items()})
    assert (
        fast
        == counts
        == work_of("ours", T, {f: len(p) for f, p in prompts.items()})
        == dict(encodings=T, object_frames=4 * T)
    )


def test_equal_when_objects_vanish(tiny):
    "A hook scrambles the object score, as a random network hardly ever loses an object."
    T = 20  # long enough for memories (6) and pointers (15) to be dropped
    frames, masks = scene(T)
    prompts = {0: {1: masks[0, 0], 2: mask_box(masks[1, 0])}, 3: {3: masks[2, 3]}}
    hook = tiny.sam_mask_decoder.pred_obj_score_head.register_forward_hook(
        lambda module, args, out: (1000 * out).sin() + 0.4
    )
    try:
        expected, (found, _) = (
            official(tiny, frames, prompts),
            _run(Sam2Tracker(model=tiny), frames, prompts, logits=True),
        )
    finally:
        hook.remove()
    absent = np.mean([x.max() < -1000 for x in expected.values()])
    assert 0.1 < absent < 0.8
    assert_equal(expected, found)


def test_released_way_gives_the_same_forward_masks(tiny):
    frames, masks = scene(8)
    prompts = {0: {1: masks[0, 0]}, 3: {2: masks[1, 3]}}
    with count_work(tiny) as work:
        expected = official(tiny, frames, prompts, way="released")
    found, counts = _run(Sam2Tracker(model=tiny), frames, prompts, backward=False, logits=True)
    assert work == work_of("released", 8, {0: 1, 3: 1}) and counts == work_of(
        "ours", 8, {0: 1, 3: 1}, backward=False
    )
    assert_equal(expected, found)


@pytest.mark.parametrize("config", ["sam2.1_hiera_b+", "sam2.1_hiera_l", "sam2_hiera_t"])
def test_other_configurations(config):
    model = load_sam2(config, image_size=128)
    frames, masks = scene(4)
    prompts = {1: {1: masks[0, 1], 2: mask_box(masks[1, 1])}}
    assert_equal(
        official(model, frames, prompts),
        _run(Sam2Tracker(model=model), frames, prompts, logits=True)[0],
    )


def test_batches_spill_and_lookahead_change_nothing(tiny, tmp_path):
    frames, masks = scene(8)
    prompts = mixed(masks, 8)
    expected, _ = _run(Sam2Tracker(model=tiny), frames, prompts, logits=True)
    for options in (
        dict(chunk=1),
        dict(budget=0, folder=tmp_path),
        dict(budget=10**6, lookahead=3, chunk=2),
    ):
        found, counts = _run(Sam2Tracker(model=tiny, **options), frames, prompts, logits=True)
        assert_equal(expected, found)
        assert counts["encodings"] == 8
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_frames_without_objects_are_encoded_only_when_needed(tiny):
    frames, masks = scene(8)
    assert _run(Sam2Tracker(model=tiny), frames, {5: {1: masks[0, 5]}}, backward=False)[1] == dict(
        encodings=3, object_frames=3
    )
    assert _run(Sam2Tracker(model=tiny), frames, {5: {1: masks[0, 5]}})[1] == dict(
        encodings=8, object_frames=8
    )
    assert _run(Sam2Tracker(model=tiny), frames, {}) == ({}, dict(encodings=0, object_frames=0))


def test_state_does_not_grow(tiny):
    sizes = []
    for n in (18, 30):
        with Sam2Tracker(model=tiny).open(
            (scene(1)[0][0] for _ in range(n)), H, W, n, backward=False
        ) as s:
            list(s.advance(0))
            s.add(1, 0, box=[10, 10, 40, 40])
            list(s.advance(n - 1))
            sizes.append(s.tracks[0].state.nbytes)
            assert len(s.store.memory) <= 2
    assert (
        sizes[0] == sizes[1] == 7 * 64 * 64 * 2 + 16 * 256 * 4
    )  # memories of 8 x 8 x 64 in two bytes, pointers of 256 in four


def test_segment_is_the_box_prompt(tiny):
    frames, masks = scene(2)
    box = mask_box(masks[0, 0])
    with Sam2Tracker(model=tiny).open(frames, H, W, 2) as s:
        list(s.advance(0))
        mask = s.segment(box)
        assert (
            mask.shape == (H, W)
            and mask.dtype == bool
            and (mask == s.add(1, 0, box=box)).all()
            and s.counts["encodings"] == 1
        )


@pytest.mark.parametrize(
    "option",
    [
        "non_overlap_masks",
        "non_overlap_masks_for_mem_enc",
        "clear_non_cond_mem_around_input",
        "add_all_frames_to_correct_as_cond",
        "memory_temporal_stride_for_eval",
        "max_cond_frames_in_attn",
        "use_obj_ptrs_in_encoder",
    ],
)
def test_unsupported_options_are_refused(tiny, option):
    old = getattr(tiny, option)
    setattr(tiny, option, (not old) if isinstance(old, bool) else 4)
    try:
        with pytest.raises(InputError, match=option):
            Sam2Tracker(model=tiny)
    finally:
        setattr(tiny, option, old)
    check_sam2(tiny)


# the protocol -----------------------------------------------------------------------------------
@pytest.fixture(params=["sam2", "flow"])
def tracker(request, tiny):
    return Sam2Tracker(model=tiny) if request.param == "sam2" else FlowTracker()


def test_protocol(tracker):
    frames, masks = scene(9)
    assert tracker.name and tracker.about
    with tracker.open(((i, i / 10, f) for i, f in enumerate(frames)), H, W, 9) as s:
        assert [(f, m) for f, m in s.advance(2)] == [(0, {}), (1, {}), (2, {})] and (
            s.image == frames[2]
        ).all()
        for k in (0, 1):
            assert s.add(k + 5, 2, mask=masks[k, 2]).shape == (H, W)
        assert isinstance(s.add_detections([mask_box(masks[0, 2])], [masks[0, 2]]), dict)
        seen = list(s.advance(8))
        assert [f for f, _ in seen] == [3, 4, 5, 6, 7, 8] and all(
            set(m) <= {5, 6} and all(x.dtype == bool and x.any() for x in m.values())
            for _, m in seen
        )
        assert set(s.scores) == {5, 6} and all(0 <= v <= 1 for v in s.scores.values())
        assert [f for f, _ in s.backward()] == [1, 0] and list(s.backward()) == []
        assert s.counts["object_frames"] == 18


def test_backward_at_discovery_equals_backward_at_the_end(tracker):
    frames, masks = scene(9)
    prompts = {0: {1: masks[0, 0]}, 3: {2: masks[1, 3]}, 6: {3: masks[2, 6]}}
    late, _ = _run(tracker, frames, prompts)
    early = {}
    with tracker.open(frames, H, W, 9) as s:
        for stop in (0, 3, 6, 8):
            for f, found in s.advance(stop):
                early |= {(f, id): x for id, x in found.items()}
            for id, p in prompts.get(stop, {}).items():
                early[stop, id] = s.add(id, stop, mask=p)
            for f, found in s.backward():
                early |= {(f, id): x for id, x in found.items()}
    assert set(early) == set(late) and all((early[k] == late[k]).all() for k in late)


def test_faults(tracker):
    frames, masks = scene(3)
    with tracker.open(frames, H, W, 4) as s:
        with pytest.raises(InputError, match="not in a video of 4"):
            list(s.advance(4))
        with pytest.raises(InputError, match="starts on the current frame"):
            s.add(1, 0, mask=masks[0, 0])
        list(s.advance(0))
        s.add(1, 0, mask=masks[0, 0])
        with pytest.raises(InputError, match="in use"):
            s.add(1, 0, mask=masks[0, 0])
        with pytest.raises(InputError, match="a mask or a box"):
            s.add(2, 0)
        with pytest.raises(InputError, match="mask of shape"):
            s.add(2, 0, mask=masks[0, 0][:-1])
        with pytest.raises(InputError, match="4 frames were announced"):
            list(s.advance(3))
    with tracker.open([frames[0], frames[1][:-1]], H, W, 2) as s:
        with pytest.raises(InputError, match="frame 1: has shape"):
            list(s.advance(1))


@pytest.mark.parametrize("box", [[-9, -9, -2, -2], [5, 5, 5, 9], [0, 0, W, H], [70, 50, 95, 90]])
def test_odd_boxes(tracker, box):
    "A box beside the frame, without area, as large as the frame, half outside."
    frames, _ = scene(3)
    with tracker.open(frames, H, W, 3) as s:
        list(s.advance(0))
        s.segment(box)
        s.add(1, 0, box=box)
        list(s.advance(1))
        s.add_detections([box])
        list(s.advance(2))


# frames beyond the budget -----------------------------------------------------------------------
def test_store_keeps_to_its_budget(tmp_path):
    store = FrameStore(
        25,
        lambda p, x: x.tofile(p),
        lambda p: np.fromfile(p, np.uint8),
        lambda x: x.nbytes,
        tmp_path,
    )
    for f in range(5):
        store.put(f, np.full(10, f, np.uint8))
        assert store.used <= 25
    assert sorted(store.memory) == [3, 4] and [int(store.get(f)[0]) for f in range(5)] == [
        0,
        1,
        2,
        3,
        4,
    ]
    store.put(1, np.full(10, 9, np.uint8))
    assert int(store.get(1)[0]) == 9
    store.drop(0)
    store.drop(77)
    with pytest.raises(KeyError):
        store.get(0)
    store.close()
    assert not list(tmp_path.iterdir())


# optical flow -----------------------------------------------------------------------------------
def moving(T=30, gap=0, speed=4, seed=0):
    "One square that crosses the frame; a wall of `gap` px in its way."
    rng = np.random.default_rng(seed)
    ground = (np.array([90, 120, 100]) + rng.integers(0, 40, (90, 160, 3))).astype(np.uint8)
    look = (np.array([190, 40, 40]) + rng.integers(0, 40, (24, 20, 3))).astype(np.uint8)
    frames, masks = np.repeat(ground[None], T, 0), np.zeros((T, 90, 160), bool)
    for t in range(T):
        x = 10 + speed * t
        frames[t, 30:54, x : x + 20] = look[:, : max(160 - x, 0)]
        masks[t, 30:54, x : x + 20] = True
        if gap:
            frames[t, :, 70 : 70 + gap] = 60
            masks[t, :, 70 : 70 + gap] = False
    return frames, masks


@pytest.mark.parametrize("gap", [0, 8, 40])
def test_flow_follows_through_cover(gap):
    frames, masks = moving(gap=gap)
    found, counts = _run(FlowTracker(), frames, {0: {1: masks[0]}})
    score = [
        mask_iou(found.get((f, 1), np.zeros_like(m)), m)
        for f, m in enumerate(masks)
        if m.sum() > 100
    ]
    assert (
        np.mean(score) > 0.85
        and score[-1] > 0.85
        and counts == dict(encodings=29, object_frames=30)
    )


def test_flow_works_at_its_own_size():
    import cv2

    frames, masks = moving()
    large = np.stack([cv2.resize(f, (480, 270), interpolation=cv2.INTER_NEAREST) for f in frames])
    big = np.stack(
        [
            cv2.resize(m.astype(np.uint8), (480, 270), interpolation=cv2.INTER_NEAREST) > 0
            for m in masks
        ]
    )
    found, _ = _run(FlowTracker(side=160), large, {0: {1: big[0]}})
    assert (
        found[29, 1].shape == (270, 480)
        and np.mean([mask_iou(found[f, 1], big[f]) for f in range(30)]) > 0.85
    )


def test_flow_disappears_with_the_object():
    frames, masks = moving(T=42)  # out of the frame from step 38 on
    found, _ = _run(FlowTracker(), frames, {0: {1: masks[0]}})
    assert mask_iou(found[36, 1], masks[36]) > 0.5 and all(
        (f, 1) not in found for f in (39, 40, 41)
    )


def test_flow_is_corrected_by_boxes():
    frames, masks = moving(T=50, gap=20, speed=2)
    with FlowTracker(patience=0).open(
        frames, 90, 160, 50
    ) as s:  # gives up as soon as nothing shows
        list(s.advance(0))
        s.add(1, 0, mask=masks[0])
        assert 1 not in dict(s.advance(45))[45]
        assert list(s.add_detections([mask_box(masks[45])])) == [1]
        assert mask_iou(dict(s.advance(46))[46][1], masks[46]) > 0.85


def test_match_needs_place_and_colour():
    frames, masks = moving()
    with FlowTracker().open(frames, 90, 160, 30) as s:
        list(s.advance(0))
        s.add(1, 0, mask=masks[0])
        state = s.tracks[0].state
    other = np.zeros_like(state.colour)
    other[0] = 1
    assert match_tracks([state], [state.box, state.box], [other, state.colour]) == {0: 1}
    assert (
        match_tracks([state], [state.box + 60], [state.colour]) == {}
        and match_tracks([], [state.box], [state.colour]) == {}
    )
    gone = carry(
        state, frames[0], frames[20], np.zeros((90, 160, 2), np.float32)
    )  # only ground where it was
    assert gone.hidden == 1 and not gone.seen.any() and (gone.shape == state.shape).all()


def test_same_masks_every_time():
    frames, masks = moving(gap=8)
    once, again = (_run(FlowTracker(), frames, {0: {1: mask_box(masks[0])}})[0] for _ in range(2))
    assert all((once[k] == again[k]).all() for k in once) and set(once) == set(again)
    assert (
        box_mask(frames[0], mask_box(masks[0])) == box_mask(frames[0], mask_box(masks[0]))
    ).all()
