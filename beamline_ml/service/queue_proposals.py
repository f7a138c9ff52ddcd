"""Proposals to the queue server: told always, submitted only where the profile opts in, and within its limits."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beamline_ml.errors import GuidanceError, ServiceError
from beamline_ml.settings import GuidanceSettings

logger = logging.getLogger(__name__)

USER = "beamline-ml"
GROUP = "primary"
_PATIENCE_MS = 10_000


@dataclass(frozen=True, slots=True)
class Proposal:
    """One item for the queue, with what it costs and why."""

    plan: str
    """Name of a plan that the queue server knows."""
    arguments: Mapping[str, Any]
    """Keyword arguments of the plan; it must take ``md``."""
    duration_s: float
    reason: str
    temperature_k: float | None = None
    """That the plan sets; None when it sets none."""
    dose_mgy: float | None = None
    """That the sample absorbs; None when it is not known."""


def check_limits(proposal: Proposal, limits: GuidanceSettings) -> None:
    """Refuse a proposal that the profile does not allow.

    Raises
    ------
    GuidanceError
        It takes longer, or more dose, or another temperature than allowed, or its dose is not known and limited.
    """
    if not 0.0 < proposal.duration_s <= limits.longest_run_s:
        raise GuidanceError(
            f"The proposal takes {proposal.duration_s:g} s of at most {limits.longest_run_s:g} s.",
            "Propose less, or raise guidance.longest_run_s in the profile.",
        )
    if limits.most_dose_mgy is not None:
        _check_dose(proposal, limits.most_dose_mgy)
    if proposal.temperature_k is not None:
        _check_temperature(proposal.temperature_k, limits.temperature_range_k)


def _check_dose(proposal: Proposal, most_mgy: float) -> None:
    if proposal.dose_mgy is None:
        raise GuidanceError(
            "The dose of the proposal is not known, and the profile limits it.", "Give beam and sample their numbers."
        )
    if not 0.0 <= proposal.dose_mgy <= most_mgy:
        raise GuidanceError(
            f"The proposal doses {proposal.dose_mgy:g} MGy of at most {most_mgy:g} MGy.", "Propose less, or attenuate."
        )


def _check_temperature(temperature_k: float, allowed_k: tuple[float, float] | None) -> None:
    if allowed_k is None:
        raise GuidanceError(
            f"The proposal sets {temperature_k:g} K, and the profile allows no temperatures.",
            "Set guidance.temperature_range_k in the profile.",
        )
    if not allowed_k[0] <= temperature_k <= allowed_k[1]:
        raise GuidanceError(
            f"The proposal sets {temperature_k:g} K outside {allowed_k[0]:g} to {allowed_k[1]:g} K.",
            "Propose another temperature.",
        )


def submit(proposal: Proposal, settings: GuidanceSettings) -> str:
    """Add a proposal at the back of the queue and return the item's uid; queue and log say why.

    Nothing is started: whoever runs the queue does that.

    Raises
    ------
    GuidanceError
        The profile does not opt in, or its limits do not allow the proposal, or enough waits already.
    ServiceError
        The queue server does not answer, or refuses.
    """
    if not settings.submit:
        raise GuidanceError(
            "The profile does not let proposals be submitted.", "Set guidance.submit = true in it to opt in."
        )
    check_limits(proposal, settings)
    address = settings.queue_control_address
    waiting = len(ask_manager(address, "queue_get")["items"])
    if waiting >= settings.most_waiting:
        raise GuidanceError(f"{waiting} items wait in the queue already.", "Wait, or raise guidance.most_waiting.")
    added = ask_manager(address, "queue_item_add", item=_item(proposal), user=USER, user_group=GROUP)
    uid = str(added["item"]["item_uid"])
    logger.info("submitted %s %s as %s: %s", proposal.plan, dict(proposal.arguments), uid, proposal.reason)
    return uid


def _item(proposal: Proposal) -> dict[str, Any]:
    md = {**proposal.arguments.get("md", {}), "proposed_by": USER, "proposed_because": proposal.reason}
    return {"item_type": "plan", "name": proposal.plan, "kwargs": {**proposal.arguments, "md": md}}


def ask_manager(address: str | None, method: str, **parameters: Any) -> dict[str, Any]:
    """One request to the RE manager's control socket, and its answer.

    The protocol is JSON over a 0MQ request socket. It is spoken here because the manager's own client leaves its 0MQ
    context open, which a process that stays up must not do once an item.

    Raises
    ------
    ServiceError
        There is no answer, or it is a refusal.
    """
    import zmq

    if address is None:
        raise ServiceError("The profile names no queue server.", "Set guidance.queue_control_address in it.")
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, _PATIENCE_MS)
        socket.connect(address)
        socket.send_json({"method": method, "params": parameters})
        try:
            answer: Any = socket.recv_json()
        except zmq.Again as error:
            raise ServiceError(f"The queue server at {address} does not answer.", "Is its RE manager up?") from error
    if not answer.get("success", True):
        raise ServiceError(f"The queue server refuses {method}: {answer.get('msg')}", "Look at its log.")
    return dict(answer)
