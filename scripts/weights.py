"""Train and ship the package's own weights; finished units are kept.

    python scripts/weights.py [--rows] [--list] [--only UNIT]

Without --rows: the detector and the base policy with its earlier stages. With --rows: what the
tables compare, trained from the shipped base.
"""

import argparse, sys, time
from dataclasses import asdict


def chosen(base, rows, which):
    "The units of a run: the base and what is shipped from nothing else, or those of the rows."
    known = {u.name for u in base}
    return list(rows) if which else [*base, *(u for u in rows if u.needs and set(u.needs) <= known)]


def done(unit, keys):
    from stvg_nb import embedded as E

    return E.unit_done(E.unit_folder(unit.name, keys[unit.name]))


def take_shipped(base, keys):
    "In a clone without `runs/`, the shipped base policy stands for its unit, if the same made it."
    from stvg_nb import embedded as E
    from stvg_nb.foundations.files import InputError, read_json, sha256_file, write_json

    unit = next(u for u in base if u.name == "policy-base")
    if done(unit, keys):
        return
    try:
        made = read_json(E.weights_dir() / "provenance.json")
    except InputError:
        return
    if any(made.get(n, {}).get("key") != keys[n] for n in unit.needs):
        return
    write_json(
        E.unit_folder(unit.name, keys[unit.name]) / "provenance.json",
        dict(
            unit=asdict(unit),
            key=keys[unit.name],
            needs={n: keys[n] for n in unit.needs},
            wall_seconds=0,
            cpu_seconds=0,
            shipped=True,
            files={p.name: sha256_file(p) for p in sorted(E.weights_dir().glob("*.safetensors"))},
        ),
        indent=1,
    )


def already_shipped(unit):
    "Has what this unit ships come with the package?"
    from stvg_nb import embedded as E

    return (
        set(unit.config.get("bases", ())) <= set(E.available())
        if unit.function.endswith("ship_bases")
        else False
    )


def run(units, base, keys, say):
    "Run what is not finished, one line a unit; -> names that could not run."
    from stvg_nb import embedded as E

    known, left = {u.name: u for u in base}, []
    for k, u in enumerate(units, 1):
        began, absent = (
            time.perf_counter(),
            [n for n in u.needs if n in known and not done(known[n], keys)],
        )
        if u.name not in known and absent and not done(u, keys):
            if already_shipped(u):
                say(f"[{k}/{len(units)}] {u.name}: kept as it is shipped, 0 s")
                continue
            left.append(u.name)
            say(f"[{k}/{len(units)}] {u.name}: needs {', '.join(absent)}, run `make weights` first")
            continue
        if waiting := [n for n in u.needs if n in left]:
            left.append(u.name)
            say(f"[{k}/{len(units)}] {u.name}: needs {waiting[0]}, which could not run")
            continue
        trained = E.run_unit(u, keys)
        say(
            f"[{k}/{len(units)}] {u.name}: {'made' if trained else 'kept'}, "
            f"{time.perf_counter() - began:.0f} s"
        )
    return left


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", action="store_true", help="the rows of the tables, in place of the base"
    )
    parser.add_argument(
        "--list", action="store_true", help="name the units and say which are finished"
    )
    parser.add_argument(
        "--only", metavar="UNIT", help="run this unit alone, of the base or of the rows"
    )
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    from stvg_nb import ablations as A, embedded as E
    from stvg_nb.foundations.files import InputError

    base, rows = E.plan(), A.row_units()
    every = [*base, *rows]
    keys, names = E.unit_keys(every), [u.name for u in every]
    if args.only and args.only not in names:
        sys.exit(f"weights: error: --only {args.only}: no such unit; there are {', '.join(names)}")
    if not args.list:
        take_shipped(base, keys)
    units = (
        [u for u in every if u.name == args.only]
        if args.only
        else chosen(base, rows, args.rows)
        if args.rows or not args.list
        else every
    )
    if args.list:
        for u in units:
            print(f"{u.name:14} {keys[u.name][7:17]} {'finished' if done(u, keys) else 'to do'}")
        return
    try:
        left = run(units, base, keys, lambda line: print(line, flush=True))
    except InputError as e:
        sys.exit(f"weights: error: {e}")
    if left:
        sys.exit(
            f"weights: error: {len(left)} of {len(units)} units could not run ({', '.join(left)})"
        )


if __name__ == "__main__":
    main()
