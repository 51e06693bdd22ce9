"""Train and ship the package's own weights: `python scripts/weights.py [--plain|--boxes|--rows]`.

Code that is not committed is refused. Finished jobs are kept, and those that train in steps go on
where they were stopped. Without --rows: the detector and the base policy with its earlier stages.
With --rows: what the tables compare, trained from the shipped base. With --plain: the plain base
and its rows, from the clips and the tower of the other. With --boxes: the policy that writes boxes,
from the shipped base, and its rows.
"""

import argparse, sys, time
from dataclasses import asdict


def chosen(base, rows, which):
    "The jobs of a run: those of the base and what is shipped from it alone, or those of the rows."
    if which:
        return list(rows)
    known = {job.name for job in base}
    return [*base, *(job for job in rows if job.needs and set(job.needs) <= known)]


def done(job, keys):
    from stvg_nb.theatre.jobs import job_done, job_folder

    return job_done(job_folder(job.name, keys[job.name]))


def stand(job, keys, files, made=None):
    "A record that says: what is shipped stands for this job, whatever its run would have made."
    from stvg_nb.foundations.files import sha256_file, write_json
    from stvg_nb.theatre.jobs import job_folder

    about = dict(made or dict(wall_seconds=0, cpu_seconds=0), unit=asdict(job), shipped=True)
    about |= dict(key=keys[job.name], needs={n: keys[n] for n in job.needs})
    about["files"] = {p.name: sha256_file(p) for p in sorted(files)}
    write_json(job_folder(job.name, keys[job.name]) / "provenance.json", about, indent=1)


def shipped_with(folder):
    "The provenance that was shipped with weights: {name of a job: its record}."
    from stvg_nb.foundations.files import InputError, read_json

    try:
        return read_json(folder / "provenance.json")
    except InputError:
        return {}


def take_shipped(base, keys):
    """In a clone without `runs/`, the base policy that is shipped stands for its job.

    It does if the provenance shipped with it names the jobs that it needs, with the same settings;
    `curriculum.recorded_keys` gives their keys under the names that the provenance uses.
    """
    from stvg_nb.theatre.curriculum import is_recorded, recorded_keys
    from stvg_nb.theatre.policy import weights_dir

    jobs, made = {job.name: job for job in base}, shipped_with(weights_dir())
    job, recorded = jobs["policy-base"], recorded_keys(base)
    if not done(job, keys) and all(is_recorded(jobs[n], recorded, made) for n in job.needs):
        stand(job, keys, weights_dir().glob("*.safetensors"))


def take_tower(base, keys):
    "In a clone without `runs/`, the shipped tower stands for the job that trained it."
    from stvg_nb.theatre.curriculum import is_recorded, recorded_keys
    from stvg_nb.theatre.jobs import job_folder
    from stvg_nb.theatre.plain_base import shipped_tower
    from stvg_nb.theatre.policy import weights_dir

    job, made = {job.name: job for job in base}["poses-2"], shipped_with(weights_dir())
    if done(job, keys) or not is_recorded(job, recorded_keys(base), made):
        return
    folder = job_folder(job.name, keys[job.name])
    shipped_tower(folder)
    stand(job, keys, folder.glob("*.safetensors"), made[job.name])


def take_boxes(boxes, keys):
    """In a clone without `runs/`, what is shipped of the writers of boxes stands for its job.

    The base does if its provenance names the jobs it needs under their keys, the outcome of a
    search and a trained row if theirs names the key of their own job.
    """
    from stvg_nb.foundations.files import read_json, sha256_file
    from stvg_nb.theatre.box_policy import box_weights
    from stvg_nb.theatre.box_rows import shipped_by

    job, made = {job.name: job for job in boxes}["policy-boxes"], shipped_with(box_weights())
    if not done(job, keys) and all(made.get(n, {}).get("key") == keys[n] for n in job.needs):
        stand(job, keys, box_weights().glob("*.safetensors"))
    jobs = {job.name: job for job in boxes}
    for ship in boxes:
        trained, told, base = shipped_by(ship) or (None, None, None)
        if told is None or not told.is_file():
            continue
        about = read_json(told)
        if base is not None and (not base.is_file() or about["base"] != sha256_file(base)):
            continue
        if about["unit"]["key"] == keys[trained]:
            files = told.parent.glob("*.safetensors") if base else []
            take_outcome(jobs[trained], ship, keys, about, files)


def take_outcome(trained, ship, keys, about, files):
    "A trained job and the one that ships it stand; later jobs read the metrics of the first."
    from stvg_nb.foundations.files import write_json
    from stvg_nb.theatre.jobs import job_folder

    if done(trained, keys):
        return
    folder = job_folder(trained.name, keys[trained.name])
    write_json(folder / "metrics.json", about["metrics"], indent=1)
    stand(trained, keys, [folder / "metrics.json"], about["unit"])
    stand(ship, keys, files)


def already_shipped(job):
    "Has what this job ships come with the package?"
    from stvg_nb.theatre.policy import available

    if not job.function.endswith("ship_bases"):
        return False
    return set(job.config.get("bases", ())) <= set(available())


def lacking(job, base, keys, left):
    "Why a job cannot run: (unfinished jobs of the base, a job that could not run)."
    known = {j.name: j for j in base}
    absent = [n for n in job.needs if n in known and not done(known[n], keys)]
    if job.name in known or done(job, keys):
        absent = []
    return absent, next((n for n in job.needs if n in left), None)


def run(jobs, base, keys, log):
    "Run what is not finished, one line a job; -> names of the jobs that could not run."
    from stvg_nb.theatre.jobs import run_job

    left = []
    for k, job in enumerate(jobs, 1):
        head, began = f"[{k}/{len(jobs)}] {job.name}", time.perf_counter()
        absent, stopped = lacking(job, base, keys, left)
        if absent and already_shipped(job):
            log(f"{head}: kept as it is shipped, 0 s")
        elif absent:
            left.append(job.name)
            log(f"{head}: needs {', '.join(absent)}, run `make weights` first")
        elif stopped:
            left.append(job.name)
            log(f"{head}: needs {stopped}, which could not run")
        else:
            word = "made" if run_job(job, keys) else "kept"
            log(f"{head}: {word}, {time.perf_counter() - began:.0f} s")
    return left


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--rows", action="store_true", help="the rows of the tables, in place of the base")
    add("--plain", action="store_true", help="the plain base, in place of the older one")
    add("--boxes", action="store_true", help="the policy that writes boxes, in place of the base")
    add("--list", action="store_true", help="name the jobs and say which are finished")
    add("--only", metavar="JOB", help="run this job alone, of the base or of the rows")
    return parser.parse_args()


def selected(args, base, rows, plain, boxes):
    "The jobs that the command line asks for."
    every = [*base, *rows, *plain, *boxes]
    if args.only:
        names = [job.name for job in every]
        if args.only not in names:
            known = ", ".join(names)
            sys.exit(f"weights: error: --only {args.only}: no such job; there are {known}")
        return [job for job in every if job.name == args.only]
    if args.boxes:
        return boxes
    if args.plain:
        return plain if args.list else with_needs(plain, base)
    return [*base, *rows] if args.list and not args.rows else chosen(base, rows, args.rows)


def still_wanted(jobs, keys):
    "Without those that only finished jobs stand on, in a clone with shipped weights."
    kept, used = [], set()
    for job in reversed(jobs):
        if job.name in used or not any(job.name in other.needs for other in jobs):
            kept.append(job)
            used |= set() if done(job, keys) else set(job.needs)
    return kept[::-1]


def with_needs(plain, base):
    "The jobs of the plain base and those of the older one that they rest on, but for its tower."
    wanted = {n for job in plain for n in job.needs}
    return [*(job for job in base if job.name in wanted and job.name != "poses-2"), *plain]


def main():
    args = arguments()
    import torch

    torch.set_num_threads(1)
    from stvg_nb.theatre import row_training
    from stvg_nb.foundations.files import InputError
    from stvg_nb.theatre.box_curriculum import box_jobs
    from stvg_nb.theatre.box_rows import box_row_jobs
    from stvg_nb.theatre.curriculum import training_jobs
    from stvg_nb.theatre.jobs import committed, job_keys
    from stvg_nb.theatre.plain_base import plain_jobs
    from stvg_nb.theatre.rivals import rival_jobs

    base, rows = training_jobs(), row_training.row_units()
    plain, boxes = [*plain_jobs(), *rival_jobs()], [*box_jobs(), *box_row_jobs()]
    keys = job_keys([*base, *rows, *plain, *boxes])
    jobs = selected(args, base, rows, plain, boxes)
    if args.list:
        for job in jobs:
            state = "finished" if done(job, keys) else "to do"
            print(f"{job.name:17} {keys[job.name][7:17]} {state}")
        return
    try:
        committed()
        take_shipped(base, keys)
        take_boxes(boxes, keys)
        if any(job in plain for job in jobs):
            take_tower(base, keys)
        if args.boxes:
            jobs = still_wanted(jobs, keys)
        left = run(jobs, base, keys, lambda line: print(line, flush=True))
    except InputError as e:
        sys.exit(f"weights: error: {e}")
    if left:
        names = ", ".join(left)
        sys.exit(f"weights: error: {len(left)} of {len(jobs)} jobs could not run ({names})")


if __name__ == "__main__":
    main()
