"""Errors of the engine: one definition for containers and images, each with the class that its cause deserves."""

from __future__ import annotations

import docker
import pytest
import requests
import urllib3

from runner.errors import AutoresearchError, DiskFullError, EngineError, ImageError
from runner.sandbox.engine import engine_errors


def raised(error, *refusal):
    with pytest.raises(AutoresearchError) as caught, engine_errors("testing", *refusal):
        raise error
    return caught.value


@pytest.mark.parametrize("refusal", [EngineError, ImageError])
def test_a_full_disk_of_the_engine_has_its_own_error(refusal):
    error = raised(docker.errors.APIError("write /var/lib/docker/x: no space left on device"), refusal)
    assert isinstance(error, DiskFullError)
    assert "while testing" in error.message


def test_a_refusal_is_an_image_error_where_an_image_is_the_subject():
    error = raised(docker.errors.APIError("nope"), ImageError)
    assert (type(error), error.message) == (ImageError, "failed while testing: nope")


def test_a_refusal_is_an_engine_error_elsewhere():
    error = raised(docker.errors.APIError("nope"))
    assert (type(error), error.message) == (EngineError, "the Docker engine failed while testing: nope")


@pytest.mark.parametrize("refusal", [EngineError, ImageError])
@pytest.mark.parametrize(
    "error", [requests.ReadTimeout("read timed out"), urllib3.exceptions.ProtocolError("cut off")]
)
def test_a_silent_engine_is_an_engine_error(error, refusal):
    error = raised(error, refusal)
    assert type(error) is EngineError
    assert "stopped answering while testing" in error.message
    assert error.remedy == "make engine"


@pytest.mark.parametrize("refusal", [EngineError, ImageError])
def test_a_malformed_answer_is_an_engine_error_and_blames_no_image(refusal):
    error = raised(KeyError("State"), refusal)
    assert type(error) is EngineError
    assert "while testing" in error.message


def test_equal_failures_share_a_fault_whatever_ids_they_name():
    response = requests.Response()
    response.status_code = 500
    one, other = (
        raised(docker.errors.APIError("", response=response, explanation=f"container {name * 12} burns"))
        for name in "ab"
    )
    assert one.message != other.message
    assert one.fault == other.fault == "testing: APIError 500"
    assert raised(docker.errors.APIError("else")).fault != one.fault


def test_our_own_errors_pass_unchanged():
    error = ImageError("ours")
    assert raised(error, ImageError) is error
