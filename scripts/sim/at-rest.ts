import { defaultReplication as intended } from '../../src/replication/settings.ts'
import type { Policy } from '../../src/replication/types.ts'
import type { SimNode } from './node.ts'
import { MINUTE, keyOf, modelIndexOf, shardOf, type Key, type SimModel } from './types.ts'
import { LIVENESS_MS, mostDemanding, type World } from './world.ts'

/** From the end of a proof's time to a replica elsewhere. */
const WEDGED_UNSEEN_MS = 15 * MINUTE
/** From when bad content must have been found to a right copy in its place. */
const ROT_MENDED_MS = 25 * MINUTE
/** An unpin, or another policy, has reached everybody and has been acted on. */
const POLICY_DONE_MS = 30 * MINUTE
const SURPLUS_SHARE = 0.01
/** Holders let go one after the other, each five minutes after the one before it and only with fresh proofs: nine of them take so long. */
const SURPLUS_DONE_MS = 45 * MINUTE

/** What is right when no fault has been at work for LIVENESS_MS (world.ts), and for a proof's time more where proofs have to tell. */
export function checkAtRest (world: World): void {
  checkTarget(world)
  checkUnpinned(world)
  checkRemoved(world)
  checkLedgers(world)
  checkPolicies(world)
  checkDrains(world)
  checkRot(world)
  checkSurplus(world)
}

/** Right replicas that count, and nodes that could take one more. */
function count (world: World, key: Key): { right: number, room: number, exists: boolean } {
  const { nodes, now } = world
  const bytes = world.modelAt(key).shardBytes[shardOf(key)] as number
  let [right, room, exists] = [0, 0, false]
  for (const node of nodes) {
    exists ||= node.disk.right(key) && !node.gone
    // Its proofs count for an hour, and nobody can know better; its deputies have to act meanwhile.
    const believed = node.wedged && now - node.wedgedAt < intended.proofTtlMs + WEDGED_UNSEEN_MS
    if ((!node.works && !believed) || node.draining) continue
    if (node.disk.keeps(key) && node.disk.right(key)) right++
    else if (node.works && !node.lies && !node.disk.keeps(key) && donationLeft(world, node) >= bytes && node.disk.free >= bytes) room++
  }
  return { right, room, exists }
}

function donationLeft (world: World, node: SimNode): number {
  let left = node.settings.donateBytes - (node.replicator?.pendingBytes ?? 0)
  for (const key of node.disk.committed) {
    const model = world.modelAt(key)
    if (!node.disk.kept.has(model.index)) left -= model.shardBytes[shardOf(key)] ?? 0
  }
  return left
}

function * wantedShards (world: World): Generator<{ model: SimModel, shard: number, key: Key }> {
  for (const model of world.models) {
    if (!world.checks.wanted(model)) continue
    for (let shard = 0; shard < model.shardBytes.length; shard++) yield { model, shard, key: keyOf(model.index, shard) }
  }
}

function checkTarget (world: World): void {
  const { checks } = world
  for (const { model, shard, key } of wantedShards(world)) {
    const { right, room, exists } = count(world, key)
    if (!exists) checks.fail('no shard is lost', `no right copy of ${model.cid}/${shard} is left`, key)
    else if (right < model.policy.target && room > 0) checks.fail('every shard comes back to target', `${model.cid}/${shard} has ${right} right replicas of ${model.policy.target}; ${room} nodes have room`, key)
  }
}

function checkUnpinned ({ models, nodes, now, checks }: World): void {
  for (const model of models) {
    if (model.at === Infinity || model.policy.target > 0 || now - model.changedAt < POLICY_DONE_MS) continue
    for (const node of nodes) {
      if (!node.works) continue
      for (const key of node.disk.committed) {
        if (modelIndexOf(key) === model.index) checks.fail('what is unpinned is let go', `${node.name} is still committed to ${model.cid}/${shardOf(key)}`, key)
      }
    }
  }
}

/** The ledger that was full when a user removed a model has been told since. */
function checkRemoved ({ nodes, models, checks }: World): void {
  for (const node of nodes) {
    if (!node.works || node.readOnly) continue
    for (const key of node.disk.stale) checks.fail('what is removed is not promised', `the ledger of ${node.name} still has ${models[modelIndexOf(key)]?.cid}/${shardOf(key)}, which its user removed`, key)
  }
}

/** Who lost its ledger has learnt from the others what it has to keep. */
function checkLedgers (world: World): void {
  const { nodes, now, checks } = world
  for (const node of nodes) {
    if (!node.works || node.readOnly || node.lies || now - node.returnedAt < LIVENESS_MS) continue
    for (const key of node.disk.lostPromises) if (checks.wanted(world.modelAt(key))) checks.fail('a lost ledger is rebuilt', `${node.name} lost its ledger ${Math.round((now - (node.disk.ledgerLostAt ?? now)) / MINUTE)} minutes ago and does not know yet what it promised`, key)
  }
}

/** Who holds a model knows what its publishers together ask for, now and after its next start. */
function checkPolicies ({ models, nodes, now, checks }: World): void {
  for (const model of models) {
    if (model.at === Infinity || now - model.changedAt < POLICY_DONE_MS) continue
    for (const node of nodes) {
      if (!node.works || !model.shardBytes.some((_, shard) => node.disk.committed.has(keyOf(model.index, shard)))) continue
      const known = inWords(node.replicator?.policyOf(model.cid))
      if (known !== inWords(model.policy)) checks.fail('every holder knows the policy', `${node.name} wants ${model.cid} ${known} times, its publishers ${inWords(model.policy)} times`)
      const kept = inWords(recordedPolicy(node, model))
      if (kept !== known) checks.fail('every holder knows the policy', `${node.name} wants ${model.cid} ${known} times, and would want it ${kept} times after a restart`)
    }
  }
}

/** What would be in force after a restart. */
export function recordedPolicy ({ disk }: SimNode, { cid }: SimModel): Policy {
  return mostDemanding([...disk.policies.values()].filter(record => record.model === cid))
}

function inWords (policy: Policy | undefined): string { return policy === undefined || policy.target === 0 ? 'no' : `${policy.min} to ${policy.target} to ${policy.max}` }

/** A drain is over when others have all that they can have. */
function checkDrains (world: World): void {
  for (const node of world.nodes) {
    if (!node.works || !node.draining || node.lies || node.readOnly) continue
    // Its volume was found out long after the last fault.
    if (!node.drainAsked && node.volume.suspectFor < LIVENESS_MS) continue
    for (const { model, shard } of node.replicator?.drainStatus(node.local(world.now)).left ?? []) {
      const index = world.modelOf(model)?.index ?? -1
      const { right } = count(world, keyOf(index, shard))
      const target = world.models[index]?.policy.target ?? 0
      // Who answers pings and nothing else may be the one who knows that it is wanted: what a lost ledger had promised is kept for a week (seed 600160 of all faults).
      if (target === 0 && (node.replicator?.rebuilding ?? 0) > 0 && world.nodes.some(other => other.wedged && other.disk.has(keyOf(index, shard)))) continue
      if (right >= target) world.checks.fail('a drain comes to its end', `${node.name} still drains: ${right} others have ${model}/${shard}, which is wanted ${target} times`, keyOf(index, shard))
    }
  }
}

/** Bad content of a promise is found within one scrub, or by the next proof that another asks for, and is replaced. */
function checkRot (world: World): void {
  const { nodes, now, settings, models, network } = world
  for (const node of nodes) {
    if (!node.works || node.lies) continue
    for (const key of node.disk.committed) {
      const since = node.disk.rottenSince(key)
      if (since === undefined || since === Infinity) continue
      const asked = nodes.some(other => other !== node && other.works && !other.lies && other.disk.committed.has(key) && other.disk.right(key) && network.good(node.index, other.index))
      const foundMs = Math.min(settings.scrubPeriodMs, asked ? intended.proofTtlMs : Infinity)
      if (now - Math.max(since, node.returnedAt) > foundMs + ROT_MENDED_MS) world.checks.fail('rot is found', `${models[modelIndexOf(key)]?.cid}/${shardOf(key)} has been bad on ${node.name} for ${Math.round((now - since) / MINUTE)} minutes`, key)
    }
  }
}

/**
 * Beyond max also for the holder who sees fewest: beside a cut that is there to stay it brings back to target what it does not see, and
 * lets nobody go whom it would miss. What changed lately (somebody committed, let go, or came back; the policy) is still being worked off.
 */
function checkSurplus (world: World): void {
  const { stats, nodes, checks, network, now } = world
  let [surplus, replicas] = [0, 0]
  for (const { model, shard, key } of wantedShards(world)) {
    replicas += count(world, key).right
    const holders = nodes.filter(node => node.works && node.disk.keeps(key) && node.disk.right(key) && !node.draining)
    const there = holders.length === 0 ? 0 : Math.min(...holders.map(({ index }) => holders.filter(other => network.hidden(index, other.index, now) === undefined).length))
    const kept = holders.filter(node => node.disk.kept.has(model.index)).length
    const changedAt = Math.max(checks.changedAt(key), model.changedAt, ...holders.map(({ returnedAt }) => returnedAt))
    const beyond = now - changedAt < SURPLUS_DONE_MS ? 0 : Math.max(0, there - Math.max(model.policy.max, kept))
    if (beyond > 0 && world.trace.keeps) world.line(key, `${model.cid}/${shard} has ${there} replicas at rest, ${beyond} too many`)
    surplus += beyond
  }
  stats.surplus += surplus
  stats.replicas += replicas
  if (surplus > Math.max(1, SURPLUS_SHARE * replicas)) checks.fail('surplus stays below one per cent', `${surplus} replicas beyond max of ${replicas}`)
}
