"""The MQTT topics: how they are built and parsed, their QoS, who publishes, and which payload they carry.

All lie below `longshore/v1/devices/<device_id>/`; the broker's access list lets a device publish and read there only.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from google.protobuf.message import Message

from longshore.v1 import mqtt_pb2

PREFIX = "longshore/v1/devices"


class Topic(StrEnum):
    """The last part of a topic's name."""

    PRESENCE = "presence"
    STATUS = "status"
    JOURNAL = "journal"
    METRICS = "metrics"
    DESIRED = "desired"
    JOURNAL_ACK = "journal-ack"
    CHANNEL = "channel"


@dataclass(frozen=True)
class TopicRule:
    """What holds for each message of a topic."""

    payload: type[Message]
    qos: Literal[0, 1]
    retain: bool
    publisher: Literal["device", "controller"]


RULES: dict[Topic, TopicRule] = {
    Topic.PRESENCE: TopicRule(mqtt_pb2.Presence, 1, True, "device"),
    Topic.STATUS: TopicRule(mqtt_pb2.StatusSnapshot, 1, True, "device"),
    Topic.JOURNAL: TopicRule(mqtt_pb2.JournalBatch, 1, False, "device"),
    Topic.METRICS: TopicRule(mqtt_pb2.Metrics, 0, False, "device"),
    Topic.DESIRED: TopicRule(mqtt_pb2.DesiredNotice, 1, True, "controller"),
    Topic.JOURNAL_ACK: TopicRule(mqtt_pb2.JournalAck, 1, True, "controller"),
    Topic.CHANNEL: TopicRule(mqtt_pb2.ChannelInvitation, 1, False, "controller"),
}


def device_topic(device_id: str, topic: Topic) -> str:
    """The full name of a device's topic; `device_id` may be "+" for a subscription to all devices.

    Raises ValueError for an id that would leave its level.
    """
    if not device_id or any(char in device_id for char in "/#\0") or ("+" in device_id and device_id != "+"):
        raise ValueError(f"not a device id: {device_id!r}")
    return f"{PREFIX}/{device_id}/{topic}"


def parse_topic(name: str) -> tuple[str, Topic]:
    """Device id and topic of a full name; ValueError where it is none of ours."""
    head, _, last = name.rpartition("/")
    prefix, _, device_id = head.rpartition("/")
    if prefix != PREFIX or not device_id:
        raise ValueError(f"not a topic of ours: {name!r}")
    return device_id, Topic(last)
