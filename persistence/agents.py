"""What an organization has in its ElevenLabs workspace for its voice agents: a secret, tools, and connected agents."""

from collections.abc import Mapping
from typing import Any

from domain.identifiers import new_id
from domain.times import now
from persistence.models import AgentTool, AgentWorkspace, ConnectedAgent


def workspace(organization_id: str) -> AgentWorkspace | None:
    """Return what is kept about the organization's workspace."""
    return AgentWorkspace.get_or_none(AgentWorkspace.organization == organization_id)


def update_workspace(organization_id: str, values: Mapping[str, object]) -> None:
    """Change the given columns, creating the row if there is none."""
    AgentWorkspace.insert(organization=organization_id).on_conflict_ignore().execute()
    AgentWorkspace.update(values).where(AgentWorkspace.organization == organization_id).execute()


def claim(organization_id: str, until: str) -> str | None:
    """Claim the organization's workspace until that timestamp; None if another claim has not ended.

    Returns:
        the claim, to be released with `release`.
    """
    AgentWorkspace.insert(organization=organization_id).on_conflict_ignore().execute()
    mine, row = new_id(), AgentWorkspace
    # Without a claim the timestamp only says when a failed write may be tried again by itself.
    free = row.claim.is_null() | row.claimed_until.is_null() | (row.claimed_until < now())
    taken = row.update(claimed_until=until, claim=mine).where(row.organization == organization_id, free).execute()
    return mine if taken else None


def holds(organization_id: str, claimed: str) -> bool:
    """Tell whether the claim has neither ended nor been taken over."""
    row = AgentWorkspace
    mine = (row.organization == organization_id) & (row.claim == claimed) & (row.claimed_until >= now())
    return bool(row.select().where(mine).exists())


def release(organization_id: str, claimed: str) -> None:
    """End the claim, unless another one took its place."""
    row = AgentWorkspace
    mine = (row.organization == organization_id) & (row.claim == claimed)
    row.update(claimed_until=None, claim=None).where(mine).execute()


def wanting_secret() -> list[str]:
    """Return the organizations whose tool secret has still to be written to ElevenLabs, and whom nobody works on."""
    row = AgentWorkspace
    free = row.claimed_until.is_null() | (row.claimed_until < now())
    query: Any = row.select(row.organization).where(
        row.secret_wanted > row.secret_done, row.secret_id.is_null(False), free
    )
    return [each[0] for each in query.tuples()]


def stored_before(moment: str) -> list[str]:
    """Return the organizations whose tool secret was written to ElevenLabs before that timestamp, and none waits."""
    row = AgentWorkspace
    query: Any = row.select(row.organization).where(
        row.secret_stored_at < moment, row.secret_sealed.is_null(), row.secret_id.is_null(False)
    )
    return [each[0] for each in query.tuples()]


def tools(organization_id: str) -> dict[str, str]:
    """Return the id of each tool that was made, by the contract's name."""
    return {row.name: row.tool_id for row in AgentTool.select().where(AgentTool.organization == organization_id)}


def remember_tool(organization_id: str, name: str, tool_id: str) -> None:
    """Keep the id of a tool, in place of the one it had."""
    mine = (AgentTool.organization == organization_id) & (AgentTool.name == name)
    if not AgentTool.update(tool_id=tool_id).where(mine).execute():
        AgentTool.create(organization=organization_id, name=name, tool_id=tool_id)


def forget_tool(organization_id: str, tool_id: str) -> None:
    """Keep a tool no longer that exists no more."""
    AgentTool.delete().where(AgentTool.organization == organization_id, AgentTool.tool_id == tool_id).execute()


def connected(organization_id: str) -> list[ConnectedAgent]:
    """Return the agents that were connected, oldest first."""
    query = ConnectedAgent.select().where(ConnectedAgent.organization == organization_id)
    return list(query.order_by(ConnectedAgent.id))


def agent(organization_id: str, agent_id: str) -> ConnectedAgent | None:
    """Return the connected agent of that id."""
    row = ConnectedAgent
    return row.get_or_none(row.organization == organization_id, row.agent_id == agent_id)


def remember_agent(organization_id: str, agent_id: str, name: str, transfers: str) -> None:
    """Keep an agent as connected, with the transfers that were set for it as JSON."""
    row = ConnectedAgent
    mine = (row.organization == organization_id) & (row.agent_id == agent_id)
    if not row.update(name=name, transfers=transfers).where(mine).execute():
        row.create(organization=organization_id, agent_id=agent_id, name=name, transfers=transfers)


def forget_agent(organization_id: str, agent_id: str) -> None:
    """Keep the agent as connected no longer."""
    row = ConnectedAgent
    row.delete().where(row.organization == organization_id, row.agent_id == agent_id).execute()


def transfer_text(organization_id: str) -> tuple[bool, str | None]:
    """Return whether an agent of the organization has a real transfer, and the organization's own text for it."""
    row = ConnectedAgent
    has = row.select().where(row.organization == organization_id, row.transfers != "[]").exists()
    kept = workspace(organization_id) if has else None
    return bool(has), kept.transfer_text if kept else None
