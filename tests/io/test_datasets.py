"""Importing datasets: every line arrives, in order of time, with its traps left in for the replay to judge."""

import gzip
import hashlib
import json
import os
from pathlib import Path

import msgspec
import pytest
import zstandard

from stream_rec.errors import SettingsError
from stream_rec.io.datasets import import_dataset

RETAIL = b"InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
REES46 = b"event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
DATA = Path(os.environ.get("STREAM_REC_DATA", "../shared/data"))


def imported(folder, name, *lines, column_map=None, end=b"\n"):
    """(report, event lines as bytes, item records)."""
    source = folder / "source"
    source.write_bytes(end.join(lines) + end)
    report = import_dataset(
        name, [source], folder / "events.jsonl", items_out=folder / "items.jsonl", column_map=column_map or {}
    )
    items = [json.loads(line) for line in (folder / "items.jsonl").read_bytes().splitlines()]
    return report, (folder / "events.jsonl").read_bytes().split(b"\n")[:-1], items


def retail(folder, *lines):
    report, events, items = imported(folder, "online-retail", RETAIL, *lines, end=b"\r\n")
    return [json.loads(e) if e.startswith(b"{") else e for e in events], items, report


def test_an_invoice_line_is_a_purchase_with_its_values_as_they_are(tmp_path):
    line = b"536365,85123A,WHITE HEART,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom"
    events, items, _ = retail(tmp_path, line)
    assert events == [
        {
            "event_id": hashlib.sha256(line).hexdigest()[:32],
            "event_type": "purchase",
            "event_at": "2010-12-01T08:26:00Z",
            "user_id": "17850.0",
            "order_id": "536365",
            "item_id": "85123A",
            "price": 2.55,
            "quantity": 6,
            "currency": "GBP",
        }
    ]
    assert items == [{"item_id": "85123A", "title": "WHITE HEART", "price": 2.55, "source": "online-retail"}]


def test_a_cancellation_is_a_refund_of_the_positive_quantity_under_its_own_number(tmp_path):
    events, items, _ = retail(tmp_path, b"C5,a,CUP,-12,2010-12-01 08:26:00,1.5,1,UK")
    assert (events[0]["event_type"], events[0]["quantity"], events[0]["order_id"]) == ("refund", 12, "C5")
    assert items == []


def test_a_bad_debt_adjustment_is_a_type_of_its_own(tmp_path):
    events, _, _ = retail(tmp_path, b"A563185,B,Adjust bad debt,1,2011-08-12 14:50:00,-11062.06,,UK")
    assert (events[0]["event_type"], events[0]["price"]) == ("adjustment", -11062.06)


def test_a_line_without_customer_has_no_user(tmp_path):
    events, _, _ = retail(tmp_path, b"1,a,CUP,1,2010-12-01 08:26:00,1,,UK")
    assert "user_id" not in events[0] and events[0]["order_id"] == "1"


@pytest.mark.parametrize(("quantity", "price"), [("-3", "0.0"), ("0", "2"), ("1", "-4.5")])
def test_a_bad_price_or_quantity_is_passed_on(tmp_path, quantity, price):
    events, _, _ = retail(tmp_path, f"1,a,CUP,{quantity},2010-12-01 08:26:00,{price},,UK".encode())
    assert (events[0]["quantity"], events[0]["price"]) == (int(quantity), float(price))


def test_exact_duplicates_have_equal_ids(tmp_path):
    line = b"1,a,CUP,1,2010-12-01 08:26:00,1,7,UK"
    events, _, _ = retail(tmp_path, line, line)
    assert len(events) == 2 and events[0] == events[1]


def test_the_title_is_the_first_description_of_a_line_that_sold_the_item(tmp_path):
    at = b"2010-12-01 08:26:00"
    events, items, _ = retail(
        tmp_path,
        b"1,a,damaged,-5," + at + b",0.0,,UK",
        b"2,a,,5," + at + b",1.0,,UK",
        b'3,a,"MUG, RED ",5,' + at + b",1.0,,UK",
        b"4,a,MUG,5," + at + b",1.0,,UK",
        b"5,b,?,5," + at + b",0,,UK",
    )
    assert [(item["item_id"], item["title"]) for item in items] == [("a", "MUG, RED")]
    assert len(events) == 5


@pytest.mark.parametrize("code", ["POST", "D", "m", "BANK CHARGES"])
def test_a_code_that_is_no_product_is_a_service_and_in_no_catalogue(tmp_path, code):
    events, items, _ = retail(tmp_path, f"1,{code},POSTAGE,1,2010-12-01 08:26:00,15,7,UK".encode())
    assert (events[0]["event_type"], events[0]["item_id"], items) == ("service", code, [])


def test_lines_are_sorted_stably_by_time_and_an_unreadable_one_stays_behind_its_neighbour(tmp_path):
    times = ["2011-01-01 09:00:00", "2011-01-01 08:00:00", "soon", "2011-01-01 07:00:00", "2011-01-01 08:00:00"]
    lines = [f"{n},a,CUP,1,{at},1,7,UK".encode() for n, at in enumerate(times)]
    events, _, _ = retail(tmp_path, *lines, b"cut,off")
    assert [e["order_id"] if isinstance(e, dict) else e for e in events] == ["3", "1", "2", "4", b"cut,off", "0"]


def test_a_line_that_is_no_utf8_is_passed_on_raw(tmp_path):
    line = b"1,a,MUG \xa3,1,2011-01-01 08:00:00,1,7,UK"
    events, _, report = retail(tmp_path, line)
    assert events == [line] and report.n_unreadable == 1


AT = b",1,2011-01-01 08:00:00,1,7,UK"


def test_a_quoted_field_may_span_lines(tmp_path):
    _, events, items = imported(tmp_path, "online-retail", RETAIL, b'1,a,"RED', b'MUG"' + AT, b"3,a,MUG" + AT)
    assert len(events) == 2 and items[0]["title"] == "RED\nMUG"


def test_a_quote_that_stays_open_costs_its_own_line_only(tmp_path):
    good = [b"%d,a,MUG" % n + AT for n in range(150)]
    lines = [*good, b'x,a,"RED' + AT, *good, b'y,a,"RED' + AT, *good]
    report, events, _ = imported(tmp_path, "online-retail", RETAIL, *lines)
    assert (report.n_events, report.n_unreadable) == (452, 2)
    assert [e for e in events if not e.startswith(b"{")] == [b'x,a,"RED' + AT, b'y,a,"RED' + AT]


def test_two_open_quotes_in_neighbouring_lines_cost_two_lines(tmp_path):
    _, events, _ = imported(tmp_path, "online-retail", RETAIL, b'1,a,"RED' + AT, b'2,a,"RED' + AT, b"3,a,MUG" + AT)
    assert [e.startswith(b"{") for e in events] == [False, False, True]


def test_an_inch_mark_inside_a_field_is_a_character(tmp_path):
    _, _, items = imported(tmp_path, "online-retail", RETAIL, b'1,a,6" PLATE' + AT, b"2,c,MUG" + AT)
    assert [item["title"] for item in items] == ['6" PLATE', "MUG"]


def test_the_day_first_copies_of_the_dataset_are_read(tmp_path):
    events, _, _ = retail(tmp_path, b"1,a,CUP,1,12/1/2010 8:26,1,7,UK")
    assert events[0]["event_at"] == "2010-12-01T08:26:00Z"


def test_rees46_types_become_ours_and_a_cut_line_is_passed_on_raw(tmp_path):
    cut = b"2019-10-01 00:00:02 UTC,view,5,1,,,35.7"
    _, events, items = imported(
        tmp_path,
        "rees46",
        REES46,
        b"2019-10-01 00:00:00 UTC,view,3,1,appliances.environment.water_heater,aqua,33.20,u1,s1",
        b"2019-10-01 00:00:01 UTC,cart,4,1,,,33.20,u1,s1",
        b"2019-10-01 00:00:01 UTC,purchase,4,1,,,33.20,u1,s1",
        b"2019-10-01 00:00:01 UTC,remove_from_cart,4,1,,,33.20,u1,s1",
        cut,
    )
    assert [json.loads(e)["event_type"] for e in events[:4]] == [
        "view_item", "add_to_cart", "purchase", "remove_from_cart",
    ]  # fmt: skip
    assert events[4] == cut
    assert json.loads(events[0]) | {"event_id": ""} == {
        "event_id": "",
        "event_type": "view_item",
        "event_at": "2019-10-01T00:00:00Z",
        "user_id": "u1",
        "session_id": "s1",
        "item_id": "3",
        "price": 33.2,
    }
    assert [(i["title"], i["category"]) for i in items] == [
        ("aqua environment water heater", "appliances > environment > water heater")
    ]


def test_movielens_ratings_become_reviews_in_order_of_time(tmp_path):
    ratings, films = tmp_path / "r", tmp_path / "f"
    ratings.write_bytes(
        b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t9\t3\t881250949\n2\t8\t5\t881250000\n"
    )
    films.write_bytes(
        b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n9\tHeat\t1995\tCrime\n"
    )
    items = tmp_path / "i.jsonl"
    import_dataset("movielens-100k", [ratings, films], tmp_path / "e.jsonl", items_out=items, column_map={})
    events = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert [(e["event_type"], e["event_at"], e["rating"]) for e in events] == [
        ("review", 881_250_000_000, 5), ("review", 881_250_949_000, 3),
    ]  # fmt: skip
    assert json.loads(items.read_text())["title"] == "Heat (1995)"


def test_the_original_movielens_file_without_header_is_read(tmp_path):
    _, events, _ = imported(tmp_path, "movielens-100k", b"196\t242\t3\t881250949")
    assert json.loads(events[0])["user_id"] == "196"


def test_a_csv_is_read_by_its_column_map(tmp_path):
    _, events, items = imported(
        tmp_path, "csv", b"when;sku;name;user_id", b"2020-01-02;a;Red mug;u",
        column_map={"event_at": "when", "item_id": "sku", "event_type": "=click", "item.title": "name"},
    )  # fmt: skip
    event = json.loads(events[0])
    del event["event_id"]
    assert event == {"event_type": "click", "event_at": "2020-01-02", "user_id": "u", "item_id": "a"}
    assert items == [{"item_id": "a", "title": "Red mug"}]


@pytest.mark.parametrize(
    ("column_map", "word"),
    [
        ({"item_ids": "sku"}, "did you mean item_id"),
        ({"item_id": "nowhere"}, "no column nowhere"),
        ({"item_id": "sku"}, "no column is named event_type"),
    ],
)
def test_a_wrong_column_map_is_refused_with_its_cure(tmp_path, column_map, word):
    with pytest.raises(SettingsError, match=word):
        imported(tmp_path, "csv", b"event_at,sku", column_map=column_map)


@pytest.mark.parametrize("name", ["online-retail", "rees46", "movielens-100k"])
def test_a_file_of_another_dataset_is_refused(tmp_path, name):
    with pytest.raises(SettingsError):
        imported(tmp_path, name, b"a,b", b"1,2")
    assert not (tmp_path / "events.jsonl").exists()


def test_the_source_is_never_overwritten(tmp_path):
    source = tmp_path / "s.csv"
    source.write_bytes(RETAIL)
    with pytest.raises(SettingsError, match="named twice"):
        import_dataset("online-retail", [source], source, column_map={})


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_go_in_and_out(tmp_path, pack, suffix):
    source, out = tmp_path / "source", tmp_path / f"e.jsonl{suffix}"
    source.write_bytes(pack(RETAIL + b"\n1,a,CUP,1,2010-12-01 08:26:00,1,7,UK\n"))
    assert import_dataset("online-retail", [source], out, column_map={}).n_events == 1
    assert b"purchase" in (gzip.decompress if suffix == ".gz" else zstandard.decompress)(out.read_bytes(), **(
        {} if suffix == ".gz" else {"max_output_size": 10_000}
    ))  # fmt: skip


def real(name, tmp_path, *files):
    paths = [DATA / file for file in files]
    if missing := [path for path in paths if not path.exists()]:
        pytest.skip(f"the research data is not there: {missing[0]} (set STREAM_REC_DATA)")
    out, items = tmp_path / "e.jsonl", tmp_path / "i.jsonl"
    report = import_dataset(name, paths, out, items_out=items, column_map={})
    return report, [msgspec.json.decode(x) if x[:1] == b"{" else x for x in out.read_bytes().splitlines()], items


@pytest.mark.data
def test_the_whole_of_online_retail_arrives(tmp_path):
    report, events, items = real("online-retail", tmp_path, "online-retail/online_retail_2010-12_2011-08.csv.gz")
    assert (report.n_events, report.n_unreadable, len(events)) == (320_705, 0, 320_705)
    kinds = [e["event_type"] for e in events]
    found = [kinds.count(kind) for kind in ("purchase", "refund", "service", "adjustment")]
    assert found == [313_333, 5_454, 1_915, 3]
    assert sum(e["price"] <= 0 for e in events) == 1_799
    titles = [json.loads(line)["title"] for line in items.read_bytes().splitlines()]
    assert not {"damaged", "found", "?", "check", "thrown away", ""} & {title.lower() for title in titles}


@pytest.mark.data
def test_the_rees46_slice_arrives_with_its_cut_last_line(tmp_path):
    report, events, _ = real("rees46", tmp_path, "rees46-oct2019-slice/2019-Oct_first17435.csv.gz")
    assert (report.n_events, report.n_unreadable) == (17_435, 1)
    assert isinstance(events[-1], bytes)


@pytest.mark.data
def test_the_whole_of_movielens_arrives(tmp_path):
    files = ("movielens-100k/ml-100k.inter.gz", "movielens-100k/ml-100k.item.gz")
    report, events, _ = real("movielens-100k", tmp_path, *files)
    assert (report.n_events, report.n_unreadable, report.n_items) == (100_000, 0, 1_682)
    times = [e["event_at"] for e in events]
    assert times == sorted(times)


@pytest.mark.parametrize("name", ["online-retail", "rees46", "movielens-100k", "csv"])
def test_a_file_without_a_header_is_refused_without_quoting_it(tmp_path, name):
    mapped = {"event_at": "when", "event_type": "what"} if name == "csv" else {}
    with pytest.raises(SettingsError) as refused:
        imported(tmp_path, name, b"jane@example.org,4111 1111,secret", column_map=mapped)
    assert "first line" in str(refused.value)
    assert not any(word in str(refused.value) for word in ("jane", "4111", "secret"))


def test_an_import_tells_how_far_it_is(tmp_path):
    source, told = tmp_path / "source", []
    row = b"a,1,CUP,1,2010-12-01 08:26:00,1.5,1,UK\n"
    source.write_bytes(RETAIL + b"\n" + row * 2_500)
    import_dataset("online-retail", [source], tmp_path / "out", column_map={}, told=lambda *n: told.append(n))
    assert [n_lines for n_lines, _, _ in told] == [1_000, 1_000, 500]
    assert told[-1][1:] == (source.stat().st_size, source.stat().st_size)
