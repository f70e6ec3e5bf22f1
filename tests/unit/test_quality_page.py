"""The page of verdicts: complete, escaped, self-contained, and the same in words as in pictures."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from gpt_trader.quality import RULES, Finding, Policy, Verdict
from gpt_trader.quality_page import SHOWN_FINDINGS, render_html, strip
from tests.quality_samples import labels, scaled, verdict, walk, without

DAYS = labels("XNYS", "1d", "2020-01-01", "2021-12-31")
HOSTILE = "<script>alert(1)</script>\"'&\ud800"


class Document(HTMLParser):
    """Collects elements with their attributes, the text, and the rows of every table."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self._cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td"):
            self._cell = False

    def handle_data(self, text: str) -> None:
        self.text += text
        if self._cell:
            self.rows[-1][-1] += text.strip()


def page(*verdicts: Verdict, **more: str) -> str:
    return render_html(verdicts, checked_at="2026-06-01T00:00:00Z", **more)


def gapped(symbol: str = "GAP") -> Verdict:
    return verdict(without(scaled(walk(DAYS), 300, 10), slice(40, 43), 100), symbol=symbol)


def finding(**values) -> Finding:
    base = Finding("ohlc", "warn", "TEST", "1d", DAYS[1], DAYS[1], 1, "")
    return replace(base, **values)


def with_findings(*findings: Finding, **values) -> Verdict:
    return Verdict("TEST", "1d", 505, 505, DAYS[0], DAYS[-1], findings, values.get("notes", ()), "XNYS")


def test_lists_every_series_and_finding():
    document = Document(page(verdict(walk(DAYS), symbol="FINE"), gapped(), snapshot_id="abc123"))
    rows = {tuple(row) for row in document.rows}
    assert ("GAP 1d", "warn", "501", "505", "2020-01-02", "2021-12-31", "XNYS", "gaps 2 · outliers 1") in rows
    assert ("FINE 1d", "ok", "505", "505", "2020-01-02", "2021-12-31", "XNYS", "–") in rows
    assert ("gaps", "warn", "2020-03-02", "2020-03-04", "3", "3 expected bars are missing") in rows
    assert "2 series, 1 with findings" in document.text
    assert "snapshot abc123" in document.text
    assert "checked 2026-06-01T00:00:00Z" in document.text
    for rule in RULES.values():
        assert rule.meaning in document.text


def test_the_gravest_come_first_and_are_linked():
    policy = Policy(rules={"gaps": "block"})
    blocked = verdict(without(walk(DAYS), 40), policy, symbol="WORST")
    html = page(verdict(walk(DAYS), symbol="FINE"), gapped(), blocked)
    document = Document(html)
    links = [a["href"] for tag, a in document.elements if tag == "a"]
    assert links == ["#s1", "#s2", "#s3"]
    assert re.findall(r'<h2 id="t\d">(\w+)', html) == ["WORST", "GAP", "FINE"]
    ids = [a["id"] for _, a in document.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links} <= set(ids)


def test_the_strip_says_in_words_what_it_draws():
    drawn = str(strip(gapped()))
    assert "2 gaps with 4 missing bars, 1 other findings" in drawn
    gap, mark = re.findall(r'<path class="(?:gap|mark)" d="([^"]*)"', drawn)
    spans = [tuple(map(float, span)) for span in re.findall(r"M([\d.]+) [\d.]+H([\d.]+)", gap)]
    days = (DAYS[-1] - DAYS[0]) / np.timedelta64(1, "D") + 1
    place = [1000 * ((DAYS[row] - DAYS[0]) / np.timedelta64(1, "D")) / days for row in (40, 100, 300)]
    assert [start for start, _ in spans] == pytest.approx(place[:2], abs=0.1)
    assert all(end - start >= 1 for start, end in spans)
    assert float(mark[1:].split()[0]) == pytest.approx(place[2], abs=0.1)


def test_thousands_of_gaps_are_few_dashes():
    time = labels("24/7", "1m", "2024-01-01", "2024-01-20")
    many = [finding(rule="gaps", timeframe="1m", first=t, last=t) for t in time[1:-1:3]]
    drawn = strip(replace(with_findings(*many), timeframe="1m", first=time[0], last=time[-1]))
    assert len(drawn) < 20_000
    assert f"{len(many)} gaps" in drawn


def test_only_the_first_findings_are_listed_and_the_rest_counted():
    document = Document(page(with_findings(*[finding(detail=f"no. {n}") for n in range(1234)])))
    listed = [row for row in document.rows if row[-1].startswith("no. ")]
    assert len(listed) == SHOWN_FINDINGS
    assert "of 1,234 findings" in document.text


def test_every_text_is_escaped():
    hostile = replace(
        with_findings(finding(detail=HOSTILE), notes=(HOSTILE,)), symbol=HOSTILE, calendar=HOSTILE
    )
    html = render_html([hostile], checked_at=HOSTILE, snapshot_id=HOSTILE)
    html.encode()
    document = Document(html)
    assert not [tag for tag, _ in document.elements if tag == "script"]
    assert document.text.count("<script>alert(1)</script>\"'&?") >= 6


def test_makes_no_request_and_declares_it():
    html = page(gapped())
    document = Document(html)
    for tag, attributes in document.elements:
        assert tag not in ("script", "link", "img", "iframe", "object")
        for name, value in attributes.items():
            assert name not in ("src", "srcset", "style"), (tag, name)
            assert not name.startswith("on"), (tag, name)
            assert name != "href" or str(value).startswith("#")
    assert not re.search(r"url\(|@import|https?://", html)
    (policy,) = [
        a["content"] for t, a in document.elements if a.get("http-equiv") == "Content-Security-Policy"
    ]
    style = re.search(r"<style>(.*?)</style>", html, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_is_readable_by_everybody():
    html = page(gapped(), verdict(walk(DAYS)))
    document = Document(html)
    assert ("html", {"lang": "en"}) in document.elements
    assert [t for t, _ in document.elements if t in ("main", "h1", "header", "footer")] == [
        "main", "header", "h1", "footer",
    ]  # fmt: skip
    assert all(a.get("role") == "img" and a["aria-label"] for t, a in document.elements if t == "svg")
    assert all("scope" in a for t, a in document.elements if t == "th")
    ids = {a["id"] for _, a in document.elements if "id" in a}
    assert {a["aria-labelledby"] for _, a in document.elements if "aria-labelledby" in a} <= ids
    assert "prefers-color-scheme: dark" in html
    assert ("meta", {"name": "color-scheme", "content": "light dark"}) in document.elements


def test_nothing_to_show_is_said():
    assert "There was no series to check." in page()
    empty = Verdict("EMPTY", "1m", 0, None, None, None, (), ("nothing is stored",), None)
    document = Document(page(empty))
    assert "Nothing was found." in document.text
    assert "nothing is stored" in document.text
    assert ["EMPTY 1m", "ok", "0", "–", "–", "–", "none", "–"] in document.rows
