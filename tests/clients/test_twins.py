"""The two clients differ only in that one of them waits with `await`."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
from visavis import AsyncClient, Client

_ASYNC_NAMES = {"__enter__": "__aenter__", "__exit__": "__aexit__"}


def methods(client: type) -> dict[str, Callable[..., Any]]:
    return {
        name: method
        for name, method in inspect.getmembers(client, inspect.isfunction)
        if not re.match("_(?!_)", name)
    }


PAIRS = [
    (name, method, methods(AsyncClient)[_ASYNC_NAMES.get(name, name)])
    for name, method in methods(Client).items()
    if _ASYNC_NAMES.get(name, name) in methods(AsyncClient)
]


def test_both_clients_have_the_same_methods():
    names = {_ASYNC_NAMES.get(name, name) for name in methods(Client)}
    assert names == methods(AsyncClient).keys()


@pytest.mark.parametrize(("name", "method", "awaited"), PAIRS)
def test_method_has_the_same_signature_in_both_clients(
    name: str, method: Callable[..., Any], awaited: Callable[..., Any]
):
    signature, other = inspect.signature(method), inspect.signature(awaited)
    # Names, order, kinds, defaults and annotations.
    assert [str(each) for each in signature.parameters.values()] == [
        # Pictures may also come from an asynchronous source.
        re.sub(r"(Iterable\[.*\]) \| collections\.abc\.Async\1", r"\1", str(each))
        for each in other.parameters.values()
    ]
    returned = re.sub(r"\bIterator\b", "AsyncIterator", str(signature.return_annotation))
    assert returned == str(other.return_annotation)


@pytest.mark.parametrize(("name", "method", "awaited"), PAIRS)
def test_method_has_the_same_docstring_in_both_clients(
    name: str, method: Callable[..., Any], awaited: Callable[..., Any]
):
    doc, other = inspect.getdoc(method), inspect.getdoc(awaited)
    if name == "close":  # The asynchronous client has a connection per event loop.
        assert other is not None
        other = other.partition("\n")[0]
    assert doc == other


@pytest.mark.parametrize(("name", "method", "awaited"), PAIRS)
def test_every_method_of_the_asynchronous_client_is_awaited(
    name: str, method: Callable[..., Any], awaited: Callable[..., Any]
):
    is_async = inspect.iscoroutinefunction(awaited) or inspect.isasyncgenfunction(awaited)
    assert is_async == (name != "__init__")
