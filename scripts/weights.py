"""Train every shipped weight again; finished units are kept: `python scripts/weights.py [--list] [--only UNIT]`."""
import argparse

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the units and say which are finished")
    parser.add_argument("--only", metavar="UNIT", help="run this unit alone")
    args = parser.parse_args()
    import torch
    torch.set_num_threads(1)
    from stvg_nb import ablations as A, embedded as E
    units = E.plan() + A.row_units()
    keys = E.unit_keys(units)
    if not args.list: return E.run_plan(units, only=args.only, say=lambda line: print(line, flush=True))
    for u in units: print(f"{u.name:14} {keys[u.name][7:17]} {'finished' if E.unit_done(E.unit_folder(u.name, keys[u.name])) else 'to do'}")

if __name__ == "__main__": main()
