"""The architecture of a model: its widths, its parts, and which layer has which."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from llamazoo.contract.component import Component, LayerSpec, Part, Site, nested_parts
from llamazoo.contract.draw import Init
from llamazoo.contract.kinds import Attention, Position
from llamazoo.contract.options import Size
from llamazoo.discovery import LOCAL, OWN, is_distribution, is_version
from llamazoo.errors import PluginError, Problem, SpecError
from llamazoo.registry import Registry, default_registry
from llamazoo.shelf import nearest
from llamazoo.spec.naming import resolved
from llamazoo.spec.part import AttentionPart, BlockPart, EmbeddingPart, FeedForwardPart, HeadPart, NormPart, dump_part, part, read_part
from llamazoo.spec.patch import LAYER_PARTS, LayerPatch, merge
from llamazoo.spec.problems import explain

__all__ = ["MAIN", "About", "ArchitectureSpec"]

MAIN = "main"  # what the position of a spec is called where positions have no names
MOST_PATCHES, MOST_PATCHED = 256, 10_000  # entries under `layers`, and layers where there are any: each is looked at


class About(BaseModel):
    """What is known of a published model, and changes nothing of what it computes."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True)

    model_type: str | None = None
    """The Hugging Face model type; a model is exported as that, if it can be."""
    licence: str | None = None
    """The licence of the weights: an SPDX identifier, or its own name."""
    paper: str | None = None
    """Where the model is described."""
    released: Annotated[str, Field(pattern=r"^[0-9]{4}(-[0-9]{2}){0,2}$")] | None = None
    """When the weights came out: a year and month, 2023-02."""


class ArchitectureSpec(BaseModel):
    """A decoder language model as data. Widths that parts share stand here; a part's own options stand with the part."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, validate_default=True, use_attribute_docstrings=True
    )

    version: Literal[1] = 1
    """The version of this format."""
    about: About = About()
    """What is known of a published model: its licence, paper and release."""
    vocab_size: Size
    """How many token ids there are."""
    dim: Size
    """Width of the model, in features."""
    hidden_dim: Size | None = None
    """Width of the feed-forwards, unless one has its own; a final number, no rule is applied."""
    n_layers: Size
    """How many layers there are."""
    n_heads: Size
    """Heads of queries in each attention."""
    n_kv_heads: Size | None = None
    """Heads of keys and values; n_heads unless given."""
    head_dim: Size | None = None
    """Width of a head; dim / n_heads unless given."""
    max_seq_len: Size
    """The context, in tokens: no row may hold more."""
    dtype: Literal["float32", "bfloat16", "float16", "float64"] | None = None
    """The number type of the weights; PyTorch's default unless given."""
    plugins: dict[str, str] = {}
    """Which distributions, in which versions, the spec's parts came from when it was written; filled in, need not be given."""
    bos_id: Annotated[int, Field(ge=0)] | None = None
    """The token id that begins a text."""
    eos_ids: list[Annotated[int, Field(ge=0)]] = []
    """The token ids at which generation stops."""
    init: Init = Init()
    """How fresh values are drawn."""

    embedding: EmbeddingPart = part("table")
    """Token ids to features."""
    positions: dict[str, Any] = {}
    """Several positions by name; `position` and the layers then name one of them."""
    position: Any
    """What tells tokens where they are; or the name of one of `positions`."""
    block: BlockPart = part("prenorm")
    """How the parts make a layer."""
    norm: NormPart
    """The norms of all layers."""
    attention: AttentionPart
    """What moves information between tokens."""
    feed_forward: FeedForwardPart
    """What mixes the features of each token."""
    layers: Annotated[list[LayerPatch], Field(max_length=MOST_PATCHES), BeforeValidator(lambda value: [] if value is None else value)] = []
    """Changes to some of the layers; later entries over earlier ones."""
    final_norm: NormPart | None = None
    """The norm before the head; as `norm` unless given."""
    head: HeadPart = part("linear")
    """Features to logits."""

    _registry: Registry = PrivateAttr()
    _source: str | None = PrivateAttr(default=None)
    _resolved: dict[tuple[int, ...], LayerSpec] = PrivateAttr(default_factory=dict)
    _reaches: list[range] | None = PrivateAttr(default=None)
    _sorts: list[tuple[int, int]] | None = PrivateAttr(default=None)

    @property
    def source(self) -> str | None:
        """The file, or zoo name, that this spec was read from."""
        return self._source

    @field_validator("plugins")
    @classmethod
    def _read_plugins(cls, value: dict[str, str]) -> dict[str, str]:
        for name, version in value.items():
            if not is_distribution(name):
                raise SpecError(f"{name[:60]!a} is no distribution's name")
            if not is_version(version):
                raise SpecError(Problem((name,), f"{version[:60]!a} is no version"))
        return value

    @field_validator("positions", mode="plain")
    @classmethod
    def _read_positions(cls, value: Any, info: ValidationInfo) -> dict[str, Part]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise SpecError("expected a map from names to positions")
        registry = (info.context or {}).get("registry") or default_registry()
        parts = {}
        for name, raw in value.items():
            if not (isinstance(name, str) and name.isascii() and name.isidentifier()):
                raise SpecError(f"{name!a} cannot name a position; use a word such as local")
            try:
                parts[name] = read_part("position", raw, registry)
            except SpecError as error:
                raise error.under(name) from None
        return parts

    @field_validator("position", mode="plain")
    @classmethod
    def _read_position(cls, value: Any, info: ValidationInfo) -> str | Part:
        named = info.data.get("positions")
        if named:
            if isinstance(value, Mapping) and set(value) == {"type"}:
                value = value["type"]  # a word merged over the part that an extended spec had here
            if not isinstance(value, str) or value not in named:
                hint = nearest(value, named) if isinstance(value, str) else ""
                raise SpecError(f"no position of this spec is named {value!r}; {hint}named in `positions`: {', '.join(named)}")
            return value
        return read_part("position", value, (info.context or {}).get("registry") or default_registry())

    @model_validator(mode="after")
    def _fits(self, info: ValidationInfo) -> Self:
        self._registry = (info.context or {}).get("registry") or default_registry()
        problems: list[Problem] = []
        if self.head_dim is None and self.dim % self.n_heads:
            problems.append(
                Problem(("dim",), f"{self.dim} features do not divide among {self.n_heads} heads (n_heads); change one, or give head_dim")
            )
        if self.n_kv_heads is not None and self.n_heads % self.n_kv_heads:
            problems.append(Problem(("n_kv_heads",), f"{self.n_kv_heads} key/value heads do not divide {self.n_heads} heads (n_heads)"))
        for field, ids in (("bos_id", [] if self.bos_id is None else [self.bos_id]), ("eos_ids", self.eos_ids)):
            problems += [
                Problem((field,), f"{i} is no token of a vocabulary of {self.vocab_size} (vocab_size)") for i in ids if i >= self.vocab_size
            ]
        if not problems:
            problems += self._part_problems()
        if problems:
            raise SpecError(*problems)
        foreign = {name: version for name, version in sorted(self.distributions.items()) if name not in (OWN, LOCAL)}
        object.__setattr__(self, "plugins", foreign)
        return self

    @property
    def distributions(self) -> dict[str, str]:
        """Which distributions, in which versions, the parts come from; `local` is what was made in code."""
        return {part.distribution: part.version for part in self._parts()}

    @property
    def made(self) -> list[type[Component]]:
        """The components that come from no distribution: made in code, or in a file of parts."""
        return list(dict.fromkeys(part.component for part in self._parts() if part.distribution == LOCAL))

    def _parts(self) -> Iterator[Part]:
        """All parts that the spec names, those inside others too, and those that every layer has something else for."""
        pending = [*self.places().values(), self.embedding, self.head, *([self.final_norm] if self.final_norm else [])]
        pending += [getattr(self, field) for field in LAYER_PARTS]
        for number, _ in self.sorts():
            layer = self.layer(number)
            pending += [layer.block, layer.attention, layer.feed_forward, layer.norm]
        while pending:
            each = pending.pop()
            yield each
            pending += [inner for _, inner in nested_parts(each.options)]

    def _part_problems(self) -> list[Problem]:
        problems: list[Problem] = []
        if isinstance(self.position, Part):
            checked: list[tuple[tuple[str, ...], Part]] = [(("position",), self.position)]
        else:
            checked = [(("positions", name), p) for name, p in self.positions.items()]
        for field in ("embedding", "final_norm", "head", *LAYER_PARTS):
            if (value := getattr(self, field)) is not None:
                checked.append(((field,), value))
        for path, value in checked:
            problems += _refusals(value, self.site(), path)
        try:
            for number, _ in self.sorts():
                layer = self.layer(number)
                site = self.site(number)
                for field in LAYER_PARTS:
                    if getattr(layer, field) is not getattr(self, field):
                        problems += _refusals(getattr(layer, field), site, ("layers", self._matching(number)[-1], field))
                problems += self._unheard(number, layer)
        except SpecError as error:
            problems += error.problems
        if not problems:
            used = {self.layer(number).position for number, _ in self.sorts()}
            problems += [Problem(("positions", name), "no layer has this position") for name in self.positions if name not in used]
            for name, p in self.positions.items():
                acts = cast(type[Position], p.component).acts()
                if "embed" in acts and used != {name}:
                    told = f"{p.type} acts on the embedding, before any layer, so it cannot be the position of some layers only"
                    problems.append(Problem(("positions", name), told))
        return list(dict.fromkeys(problems))

    def _unheard(self, number: int, layer: LayerSpec) -> list[Problem]:
        """A position that would act where the layer's attention does not let it: it would silently not be there."""
        position, attention = self.places()[layer.position].component, layer.attention.component
        assert issubclass(position, Position)
        assert issubclass(attention, Attention)
        missing = position.acts() - attention.honours - {"embed"}
        if not missing:
            return []
        acts = " and ".join(sorted(missing))
        path = ("layers", self._matching(number)[-1]) if self._matching(number) else ("attention",)
        message = f"the attention {attention.name!r} does not do what the position {position.name!r} asks ({acts}); use another of the two"
        return [Problem(path, message)]

    def places(self) -> dict[str, Part]:
        """The positions by name; a spec without names has one, called `main`."""
        return dict(self.positions) if self.positions else {MAIN: self.position}

    def site(self, layer: int | None = None, place: Any = None) -> Site:
        """Where a part of this model stands."""
        return Site(
            vocab_size=self.vocab_size,
            dim=self.dim,
            hidden_dim=self.hidden_dim,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads or self.n_heads,
            head_dim=self.head_dim or self.dim // self.n_heads,
            max_seq_len=self.max_seq_len,
            layer=layer,
            place=place,
        )

    def layer(self, number: int) -> LayerSpec:
        """What layer `number` is made of: the parts of the spec, with the patches that match it merged over them in turn."""
        matching = self._matching(number)
        if matching not in self._resolved:
            self._resolved[matching] = self._resolve(matching)
        return self._resolved[matching]

    def sorts(self) -> list[tuple[int, int]]:
        """The sorts of layer that differ: the first layer of each, and how many there are. SpecError where a patch cannot be."""
        if self._sorts is None:
            counts: dict[tuple[int, ...], list[int]] = {}
            if self.layers and self.n_layers > MOST_PATCHED:
                raise SpecError(
                    Problem(("layers",), f"{self.n_layers} layers (n_layers) are too many to differ; at most {MOST_PATCHED} may")
                )
            for number in range(self.n_layers if self.layers else 1):
                counts.setdefault(self._matching(number), [number, 0])[1] += 1
            self._sorts = [(first, count) for first, count in counts.values()] if self.layers else [(0, self.n_layers)]
        return self._sorts

    def _matching(self, number: int) -> tuple[int, ...]:
        if self._reaches is None:
            self._reaches = [self._reach(i) for i in range(len(self.layers))]
        return tuple(i for i, reach in enumerate(self._reaches) if number in reach)

    def _reach(self, patch: int) -> range:
        try:
            return self.layers[patch].layers(self.n_layers)
        except SpecError as error:
            raise error.under("layers", patch) from None

    def _resolve(self, matching: tuple[int, ...]) -> LayerSpec:
        chosen: dict[str, Any] = {field: getattr(self, field) for field in LAYER_PARTS}
        position = self.position if isinstance(self.position, str) else MAIN
        for i in matching:
            patch = self.layers[i]
            if patch.position is not None:
                if patch.position not in self.positions:
                    hint = nearest(patch.position, self.positions)
                    known = ", ".join(self.positions) or "none; name them in `positions`"
                    raise SpecError(Problem(("layers", i, "position"), f"no position named {patch.position!r}; {hint}known: {known}"))
                position = patch.position
            for field in LAYER_PARTS:
                change = getattr(patch, field)
                if change is None:
                    continue
                try:
                    before = dump_part(chosen[field])
                    chosen[field] = read_part(field, merge(before, resolved(field, change, self._registry, before)), self._registry)
                except SpecError as error:
                    inherited = (
                        ""
                        if isinstance(change, str) or "type" in change
                        else f" (this patch changes the {field} {chosen[field].type!r}; `layers: []` drops inherited patches)"
                    )
                    raise type(error)(*(Problem(("layers", i, field, *p.path), p.message + inherited) for p in error.problems)) from None
        return LayerSpec(**chosen, position=position)

    def canonical(self) -> dict[str, Any]:
        """This spec as plain data in its one canonical form, from which it can be read again exactly."""
        data = self.model_dump(mode="json", exclude={"about", "position", "positions", "layers"})
        data["about"] = self.about.model_dump(exclude_none=True)
        data["positions"] = {name: dump_part(p) for name, p in self.positions.items()}
        data["position"] = dump_part(self.position) if isinstance(self.position, Part) else self.position
        data["layers"] = [self._patch(patch, data) for patch in self.layers]
        order = [name for name in type(self).model_fields if data[name] not in (None, {}, [])]
        return {name: data[name] for name in order}

    def _patch(self, patch: LayerPatch, data: Mapping[str, Any]) -> dict[str, Any]:
        """A change to layers, its parts named as beyond doubt as those of the spec."""
        told = patch.model_dump(mode="json", exclude_unset=True)
        return {field: resolved(field, v, self._registry, data[field]) if field in LAYER_PARTS else v for field, v in told.items()}

    @property
    def registry(self) -> Registry:
        """Where the parts of this spec were found."""
        return self._registry

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy; with an `update` it is checked as if it had been written so. Raises SpecError."""
        fields = {name: getattr(self, name) for name in type(self).model_fields} | dict(update or {})
        try:
            twin = type(self).model_validate(fields, context={"registry": self._registry})
        except ValidationError as error:
            raise explain(error, type(self)) from None
        twin._source = self._source
        return twin

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self  # frozen, and its registry is no part of it

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process, which finds the parts among what is installed there. PluginError for a part that only this one has."""
        here = sorted({f"{part.kind} {part.component.name!r}" for part in self._parts() if part.distribution == LOCAL})
        if here:
            raise PluginError(
                f"the {' and the '.join(here)} was made in code, and exists in this process only: another cannot find it; "
                "put it into a package with an entry point (`llamazoo plugin new`)"
            )
        return _revived, (self.canonical(), self._source)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArchitectureSpec) and self.canonical() == other.canonical()

    def __hash__(self) -> int:
        return hash((self.vocab_size, self.dim, self.n_layers, self.norm.type, self.attention.type))


def _revived(data: dict[str, Any], source: str | None) -> ArchitectureSpec:
    """A spec that came from another process."""
    try:
        spec = ArchitectureSpec.model_validate(data, context={"registry": default_registry()})
    except ValidationError as error:
        raise explain(error, ArchitectureSpec) from None
    spec._source = source
    return spec


def _refusals(value: Part, site: Site, path: tuple[str | int, ...]) -> list[Problem]:
    try:
        value.component.check(value.options, site)
    except SpecError as error:
        return [problem.under(*path) for problem in error.problems]
    return []
