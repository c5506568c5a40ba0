"""What can be asked for: target profiles, runtimes, the form."""

from dataclasses import asdict
from typing import Any

from controller.builds.targets import TargetProfile
from controller.rpc.build_parts import BuildCalls
from controller.spec.form import FormField, build_form
from controller.spec.runtimes import load_runtimes
from longshore.v1 import build_pb2, types_pb2


class CatalogueCalls(BuildCalls):
    """What can be asked for: target profiles, runtimes, the form."""

    async def ListTargetProfiles(
        self, request: build_pb2.ListTargetProfilesRequest, context: Any
    ) -> build_pb2.ListTargetProfilesResponse:
        profiles = self._parts.profiles.values()
        return build_pb2.ListTargetProfilesResponse(profiles=map(profile_message, profiles))

    async def ListRuntimes(
        self, request: build_pb2.ListRuntimesRequest, context: Any
    ) -> build_pb2.ListRuntimesResponse:
        profiles = self._parts.profiles.values()
        return build_pb2.ListRuntimesResponse(
            runtimes=[
                build_pb2.Runtime(
                    kind=kind,
                    description=runtime.description,
                    notes=runtime.notes,
                    serves_models=runtime.serves_models,
                    profiles=[profile.name for profile in profiles if kind in profile.engines],
                )
                for kind, runtime in load_runtimes().items()
            ]
        )

    async def GetBuildForm(
        self, request: build_pb2.GetBuildFormRequest, context: Any
    ) -> build_pb2.GetBuildFormResponse:
        profiles = self._parts.profiles
        distributions = dict.fromkeys(base for profile in profiles.values() for base in profile.bases)
        choices = {
            "targets[].profile": tuple(profiles),
            "build.runtime.kind": tuple(load_runtimes()),
            "build.distribution": tuple(distributions),
        }
        return build_pb2.GetBuildFormResponse(fields=map(form_message, build_form(choices)))


def profile_message(profile: TargetProfile) -> build_pb2.TargetProfile:
    return build_pb2.TargetProfile(
        name=profile.name,
        platform=profile.platform,
        description=profile.description,
        notes=profile.notes,
        base=profile.base,
        bases=profile.bases,
        engines=profile.engines,
        accelerator=profile.accelerator.kind if profile.accelerator else "",
        artifacts=[types_pb2.ArtifactKind.Value(f"ARTIFACT_KIND_{kind.upper()}") for kind in profile.artifacts],
    )


def form_message(field: FormField) -> build_pb2.FormField:
    """Bounds that are None stay absent."""
    return build_pb2.FormField(**asdict(field))
