"""Defects of a run: decisions, events, means, data."""

from __future__ import annotations

from .defect import Defect, defect

DECISIONS = (
    defect(
        "a run stops one miss too late",
        "training/early_stopping/rules.py",
        "        if misses >= self.patience:\n            best =",
        "        if misses > self.patience:\n            best =",
        "early_stopping: a_run_stops_where_a_plain_loop_says",
    ),
    defect(
        "NaN is the best value",
        "training/early_stopping/rule.py",
        "    if not math.isfinite(value):\n",
        "    if math.isinf(value):\n",
        "early_stopping: the_best_is_the_first_of_the_finite_extremes",
    ),
    defect(
        "an equal value is an improvement",
        "training/early_stopping/rule.py",
        '(value < best if mode == "min" else value > best)',
        '(value <= best if mode == "min" else value >= best)',
        "early_stopping: the_best_is_the_first_of_the_finite_extremes",
    ),
    defect(
        "the last step is evaluated twice",
        "training/loop.py",
        "    session.poll()\n",
        "    if session.place.limit is not None:\n"
        "        sets, program = session.plan.evaluations, session.plan.program\n"
        "        sets.evaluated(program, session.train, [*sets.sets], session.emit, bool)\n"
        "    session.poll()\n",
        "events: events_come_in_one_order",
    ),
    Defect(
        "the beginning of an evaluation is notified at its end",
        "training/plan.py",
        (
            ("            emit(EvalBegin(state, name, weights))\n", ""),
            (
                "            prefix = _prefix(name, weights)",
                "            emit(EvalBegin(state, name, weights))\n"
                "            prefix = _prefix(name, weights)",
            ),
        ),
        "events: events_come_in_one_order",
    ),
    defect(
        "an evaluation weighs its batches alike",
        "training/evaluation.py",
        "answers.metric(value, weight)",
        "answers.metric(value, weight * 0 + 1)",
        "run: an_evaluation_weighs_every_sample_alike",
    ),
    defect(
        "an epoch weighs its steps alike",
        "training/metrics_log.py",
        "metrics.added(sums, numbers, samples)",
        "metrics.added(sums, numbers, 1)",
        "run: the_mean_of_an_epoch_weighs_its_steps_by_their_samples",
    ),
)

DATA = (
    defect(
        "every epoch has the order of the first",
        "data/batches.py",
        "Permutation(self.samples, self.seed or 0, epoch)",
        "Permutation(self.samples, self.seed or 0, 0)",
        "data: epochs_and_seeds_differ",
    ),
    defect(
        "samples draw from the generators as they come",
        "data/sample_reader.py",
        '                scope.seed(derive(self.seed, "sample", epoch, sample))\n',
        "",
        "data: a_batch_is_a_function_of_its_place",
    ),
    defect(
        "an epoch goes on one batch too late",
        "data/source.py",
        "            self._stream, self._at = self._opened(epoch, start), (epoch, start)\n",
        "            self._stream = self._opened(epoch, start + (start > 0))\n"
        "            self._at = (epoch, start)\n",
        "data: parts_make_the_whole",
    ),
    Defect(
        "a mixture's sources begin from the start",
        "data/mixture.py",
        (("self._cursors[name].seek(count)\n", "self._cursors[name].seek(0)\n"),),
        "property_tests/test_data.py::test_a_mixture_begins_anywhere_without_a_saved_state",
    ),
)
