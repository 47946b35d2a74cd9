"""What trackers do alike that remember a first and a recent template: start, refresh, the views of training.

Knows the protocol (``models.base``); knows no trunk, no head and no tracker.

Shapes: B batch (targets), V views, L word pieces, C width, M template cells, S side of a crop in pixels.
Boxes are cx, cy, w, h in units of the crop's side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from vltrack.models.base import Flag, Memory, Prediction, Template, Text, Views
from vltrack.nn.front import Front


@dataclass(frozen=True, kw_only=True)
class TemplateMemory(Memory):
    """The first template, and the last sure one: the first again as long as there is none."""

    first: Template
    recent: Template


T = TypeVar("T", bound=TemplateMemory)


class TemplateTracker(Front, Generic[T]):
    """A front with a memory ``T`` of templates; a subclass that remembers more adds it to what is here."""

    def remember(
        self,
        template_B3SS: Tensor,
        template_box_B4: Tensor,
        context_B3SS: Tensor,
        context_box_B4: Tensor,
        text: Text | None = None,
    ) -> TemplateMemory:
        """Start of a target, or of several: BBOX where ``text`` is None, else NLBBOX. Needs no context."""
        first = self.embed_template(template_B3SS, template_box_B4)
        flag = Flag.BBOX if text is None else Flag.NLBBOX
        flag_B = torch.full((len(template_B3SS),), int(flag), device=template_B3SS.device)
        text = self.no_text(len(template_B3SS)) if text is None else text
        return TemplateMemory(flag_B=flag_B, text=text, first=first, recent=first)

    def refresh(
        self,
        memory: T,
        seen: Prediction,
        box_B4: Tensor,
        template_B3SS: Tensor | None = None,
        template_box_B4: Tensor | None = None,
    ) -> T:
        """A new recent template where one is given and the size has room for it; else the same memory."""
        if template_B3SS is None or template_box_B4 is None or self.templates < 2:
            return memory
        return replace(memory, recent=self.embed_template(template_B3SS, template_box_B4))

    def templates_of(self, views: Views) -> tuple[Template, Template]:
        """The first template of each target (B), and what the trunk sees beside each view (B * V)."""
        first = self.embed_template(views.template_B3SS, views.template_box_B4)
        return first, self.beside_recent(first.pick(views.each()), views)

    def beside_recent(self, first: Template, views: Views) -> Template:
        """The first template of each view (B * V) and a recent one, as if cut some frames ago.

        The first alone where the size has no room for another.
        """
        if self.templates < 2:
            return first
        recent = self.embed_template(views.recent_BV3SS.flatten(0, 1), views.recent_box_BV4.flatten(0, 1))
        return first.beside(recent)
