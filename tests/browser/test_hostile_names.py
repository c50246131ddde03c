"""Names from another program that are scripts or look like other names: the pages show them only as text."""

import json
from contextlib import closing
from itertools import count

import redis
from playwright.sync_api import Page, expect

from support.browser import Person
from support.shop import Shop
from support.waiting import eventually

# None contains a text that another test looks for: see Shop.mark.
SCRIPTS = [
    "<script>hit=1</script>",
    "<img src=x onerror=hit=1>",
    "<svg onload=hit=1>",
    '"><script>hit=1</script>',
    "x' onmouseover='hit=1",
    "</title></script><script>hit=1</script>",
    '<iframe srcdoc="<script>parent.hit=1</script>"></iframe>',
    "<a href=javascript:hit=1>here</a>",
    "<details open ontoggle=hit=1>",
    "<math><mi></table><style><img src=x onerror=hit=1>",
    "{{constructor.constructor('hit=1')()}}",
    "${hit=1}",
]
DISGUISED = {
    "ana\u202enob": r"ana\u202enob",
    "an\u200ba": r"an\u200ba",
    "\u2066ana\u2069": r"\u2066ana\u2069",
    "ana\u3164": r"ana\u3164",
    "\ufeffana\u00ad": r"\ufeffana\u00ad",
}
_ids = count(10**9)  # unused by others


def _published(shop: Shop, names: list[str]) -> list[str]:
    """Publish accounts with these names and owners, as another program; the first gets such customers."""
    ids = [str(next(_ids)) for _ in names]
    events = [
        ("AccountCreated", _named(id, shop, name, description=name, owned_by=name))
        for id, name in zip(ids, names, strict=True)
    ]
    events += [("CustomerCreated", _named(str(next(_ids)), shop, name, account_id=ids[0])) for name in names]
    with closing(redis.Redis.from_url(shop.tally.redis_url)) as client:
        for kind, payload in events:
            client.xadd("event-stream", {"EventTypeName": kind, "Payload": json.dumps(payload)})

    def customers() -> int:
        answer = shop.tally.accounts.request("GET", f"/accounts/{ids[0]}/summary")
        return int(answer.json()["account"]["customers"]) if answer.status == 200 else 0

    eventually(lambda: customers() == len(names))
    return ids


def _named(id: str, shop: Shop, name: str, **fields: str) -> dict[str, str]:
    return {"id": id, "name": f"{shop.mark} {name}", "created_date": "2019-01-06T00:00:00Z", **fields}


def _nothing_ran(page: Page) -> None:
    assert not page.evaluate("'hit' in window")
    inserted = page.locator("main, dialog").locator(
        "script, img, svg[onload], iframe, math, details[ontoggle]"
    )
    expect(inserted).to_have_count(0)
    expect(page.locator("[onerror], [onload], [onmouseover], [href^='javascript:']")).to_have_count(0)


def test_a_script_of_another_program_is_text_on_the_accounts_page(person: Person, shop: Shop) -> None:
    ids, page = _published(shop, SCRIPTS), person.page
    names = [f"{shop.mark} {script}" for script in SCRIPTS]
    shop.see_accounts(page)
    expect(page.locator("#accounts tbody tr")).to_have_count(len(SCRIPTS))
    _nothing_ran(page)
    for id, name, script in zip(ids, names, SCRIPTS, strict=True):
        shop.see_accounts(page, f"#account={id}")
        expect(page.locator("#account-name")).to_have_text(name)
        expect(page.locator("#account-about")).to_contain_text(f"owned by {script}")
    shop.see_accounts(page, f"#account={ids[0]}")
    customers = page.locator("#account-customers tbody th")
    page.get_by_label("Sort customers by").select_option("Oldest first")
    expect(customers).to_have_text(names)
    for customer in customers.all():
        customer.hover()
    _nothing_ran(page)


def test_a_script_is_text_on_the_customers_page(person: Person, shop: Shop) -> None:
    ids = [shop.customer(script) for script in SCRIPTS]
    page = person.page
    shop.see_customers(page)
    expect(page.locator("#customers tbody tr")).to_have_count(len(SCRIPTS))
    _nothing_ran(page)
    for id, script in zip(ids, SCRIPTS, strict=True):
        shop.see_customers(page, f"#customer={id}")
        expect(page.locator("#customer-name")).to_have_text(f"{shop.mark} {script}")
    _nothing_ran(page)


def test_what_makes_a_name_look_like_another_is_written_out(person: Person, shop: Shop) -> None:
    """The services refuse such names, but another program can publish them."""
    first, *_ = _published(shop, [*DISGUISED])
    shop.see_accounts(person.page, f"#account={first}")
    person.page.get_by_label("Sort customers by").select_option("Oldest first")
    expect(person.page.locator("#account-customers tbody th")).to_have_text(
        [f"{shop.mark} {written}" for written in DISGUISED.values()]
    )
    expect(person.page.locator("#account-about")).to_contain_text(
        f"owned by {next(iter(DISGUISED.values()))}"
    )
