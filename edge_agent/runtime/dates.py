"""Certificates that are not valid by this device's clock: that is wrong, as after a power cut, or they have ended.

Nothing is trusted whose dates do not fit: each of the programs that verify (gRPC, the MQTT client, Podman) asks the
clock itself, and a device that took ended certificates would take those that were stolen long ago.
"""

from datetime import UTC, datetime

# In the words of OpenSSL, which are also those of BoringSSL within gRPC.
ENDED, NOT_YET = "certificate has expired", "certificate is not yet valid"


def doubt(whose: str, error: str) -> str:
    """What to say of a handshake that failed for its certificate's dates; empty where it failed for something else."""
    if not (ENDED in error or NOT_YET in error):
        return ""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    state = "has ended" if ENDED in error else "is not valid yet"
    return (
        f"by this device's clock, which says {now}, the certificate of {whose} {state}; set the clock,"
        " or renew that certificate where the clock is right; what runs goes on"
    )
