#!/usr/bin/env python3
"""Draws what each step of the fusion bought in the last measured round of a run, as an SVG of horizontal bars.

    tools/plot-ladder.py RUN_DIR > picture.svg

Reads rounds.jsonl (the `ladder` measure). Standard library only.
"""
import json
import os
import sys

WIDTH, LEFT, RIGHT, BAR, GAP, TOP = 760, 270, 70, 22, 10, 56
COLOURS = {"client": "#8a94a6", "step": "#2f6fde", "bad": "#d1495b", "ensemble": "#3a9d6e"}


def rows_of(line):
    ladder = line["ladder"]
    rows = [(f"client {client['client']} alone", client["accuracy"], "client") for client in ladder["clients"][:10]]
    for number, step in enumerate(ladder["steps"]):
        name = "plain mean" if number == 0 and len(ladder["steps"]) > 1 else step["name"].replace("+", " + ")
        rows.append((name, step["accuracy"], "bad" if number == 0 and len(ladder["steps"]) > 1 else "step"))
    rows.append(("ensemble of logits (upper mark)", ladder["ensemble"]["accuracy"], "ensemble"))
    return rows


def svg(rows, title):
    height = TOP + len(rows) * (BAR + GAP) + 34
    scale = WIDTH - LEFT - RIGHT
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
           f'role="img" font-family="sans-serif" font-size="14">',
           f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
           f'<text x="16" y="30" font-size="16" font-weight="bold" fill="#1c2330">{title}</text>']
    for tick in range(0, 101, 20):
        x = LEFT + scale * tick / 100
        out.append(f'<line x1="{x}" y1="{TOP - 8}" x2="{x}" y2="{height - 30}" stroke="#e3e6ec"/>')
        out.append(f'<text x="{x}" y="{height - 12}" text-anchor="middle" fill="#4a5365" font-size="12">{tick} %</text>')
    for number, (name, accuracy, kind) in enumerate(rows):
        y = TOP + number * (BAR + GAP)
        out.append(f'<text x="{LEFT - 10}" y="{y + 16}" text-anchor="end" fill="#1c2330">{name}</text>')
        out.append(f'<rect x="{LEFT}" y="{y}" width="{scale * accuracy:.1f}" height="{BAR}" rx="3" fill="{COLOURS[kind]}"/>')
        out.append(f'<text x="{LEFT + scale * accuracy + 6:.1f}" y="{y + 16}" fill="#1c2330">{100 * accuracy:.1f}</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    with open(os.path.join(sys.argv[1], "rounds.jsonl"), encoding="utf-8") as file:
        lines = [line for line in map(json.loads, file) if "ladder" in line]
    if not lines:
        sys.exit(f"{sys.argv[1]}: no round was measured with 'ladder'; add it to analysis.measures")
    sys.stdout.write(svg(rows_of(lines[-1]), "Test accuracy: what each step of the fusion bought"))


if __name__ == "__main__":
    main()
