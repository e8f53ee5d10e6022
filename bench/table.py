#!/usr/bin/env python3
"""Turns Google Benchmark's JSON into markdown tables.

    table.py RESULT.json [RESULT.json ...] > table.md

Benchmarks whose names differ in the last part only (`.../compiled/10`, `.../autograd/10`) share a row: the last part
that is not a number is the column. With repetitions the median is shown. Times are
processor time of the one thread, which other programs on the machine disturb least.
"""

import json
import re
import sys
from collections import OrderedDict

TO_MICROSECONDS = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}


def duration(microseconds):
    """Three significant digits in the unit that fits."""
    for unit, scale in (("s", 1e6), ("ms", 1e3), ("us", 1.0)):
        if microseconds >= scale or unit == "us":
            name = "µs" if unit == "us" else unit
            return f"{microseconds / scale:.3g} {name}" if microseconds / scale < 1000 else f"{microseconds / scale:.0f} {name}"
    raise AssertionError


def read(path):
    """The machine's context and {name: microseconds} of one file."""
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    runs = document["benchmarks"]
    medians = [run for run in runs if run.get("aggregate_name") == "median"]
    times = OrderedDict()
    for run in medians or [run for run in runs if run.get("run_type", "iteration") == "iteration"]:
        if run.get("error_occurred"):
            raise SystemExit(f"{path}: {run['name']} failed: {run.get('error_message', '')}")
        name = run["run_name"] if medians else run["name"]
        # A benchmark that takes its own time says so in its name; of all others processor time is what repeats.
        manual = name.endswith("/manual_time")
        name = re.sub(r"(/iterations:\d+)?/manual_time$", "", name)
        times[name] = run["real_time" if manual else "cpu_time"] * TO_MICROSECONDS[run["time_unit"]]
    if not times:
        raise SystemExit(f"{path}: holds no benchmark")
    return document.get("context", {}), times


def split(name):
    """`a/b/column/10` to (`a`, `b, 10`, `column`): table, row, column."""
    parts = name.split("/")
    numbers = []
    while len(parts) > 1 and parts[-1].lstrip("-").isdigit():
        numbers.insert(0, parts.pop())
    column = parts.pop() if len(parts) > 1 else "time"
    return parts[0], ", ".join(parts[1:] + numbers) or parts[0], column


def tables(times):
    """{table: (columns, {row: {column: microseconds}})} in the order met."""
    found = OrderedDict()
    for name, microseconds in times.items():
        table, row, column = split(name)
        columns, rows = found.setdefault(table, ([], OrderedDict()))
        if column not in columns:
            columns.append(column)
        rows.setdefault(row, {})[column] = microseconds
    return found


def markdown(times):
    lines = []
    for table, (columns, rows) in tables(times).items():
        lines += [f"### {table.replace('_', ' ')}", "", "| | " + " | ".join(c.replace("_", " ") for c in columns) + " |"]
        lines.append("|---" * (len(columns) + 1) + "|")
        for row, cells in rows.items():
            shown = [duration(cells[column]) if column in cells else "" for column in columns]
            lines.append(f"| {row.replace('_', ' ')} | " + " | ".join(shown) + " |")
        lines.append("")
    return "\n".join(lines)


def main(paths):
    if not paths or paths[0] in ("-h", "--help"):
        raise SystemExit(__doc__)
    times = OrderedDict()
    context = {}
    for path in paths:
        context, more = read(path)
        times.update(more)
    if context:
        print(f"{context.get('num_cpus', '?')} cores at {context.get('mhz_per_cpu', '?')} MHz, processor time of one thread, "
              f"{context.get('date', '')[:10]}; median where repeated.\n")
    print(markdown(times))


if __name__ == "__main__":
    main(sys.argv[1:])
