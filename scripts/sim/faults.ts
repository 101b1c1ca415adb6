import { MiB, randomInt, shuffle, type Random } from '../../src/base/index.ts'
import type { Policy } from '../../src/replication/types.ts'
import type { SimNode } from './node.ts'
import { back, crash, drain, during, goes, healers, mayGo, outage, pick, rots, say, spares, working } from './fault-tools.ts'
import { HOUR, MINUTE, SECOND, type FaultName, type SimModel } from './types.ts'
import { REBOOT_MS } from './checks.ts'
import { rebootHolders } from './fault-cache.ts'
import { failVolume } from './fault-volume.ts'
import type { World } from './world.ts'

/** Faults begin when the first model had time to spread. */
const FIRST_MS = 25 * MINUTE
const LIAR_SHARE = 0.15
/** Of times when room is needed: just when all who promised something are away. */
const WORST_SHARE = 0.1
/** One-way cuts that nobody ever mends. */
const STAYS_SHARE = 0.15
const STAYS_MAX = 2

interface Fault {
  /** Mean time between two. */
  everyMs: number
  run: (world: World, random: Random) => void
}

const faults: Record<FaultName, Fault> = {
  crash: {
    everyMs: 25 * MINUTE,
    run: (world, random) => {
      const [node, ms] = [pick(random, working(world)), outage(random)]
      if (node === undefined) return
      say(world, `${node.name} crashes for ${Math.round(ms / SECOND)} s`)
      crash(world, node, ms)
    }
  },
  'disk-loss': {
    everyMs: 50 * MINUTE,
    run: (world, random) => {
      const [node, ms] = [pick(random, working(world)), outage(random)]
      if (node === undefined || !spares(world, [node], 1)) return
      say(world, `${node.name} crashes for ${Math.round(ms / SECOND)} s and loses its disk`)
      world.disturb(0)
      node.disk.wipe()
      crash(world, node, ms)
    }
  },
  loss: {
    everyMs: 50 * MINUTE,
    run: (world, random) => {
      const node = pick(random, working(world))
      if (node === undefined || !mayGo(world, [node])) return
      say(world, `${node.name} is lost for good`)
      goes(world, node)
    }
  },
  slow: {
    everyMs: 40 * MINUTE,
    run: (world, random) => {
      const [node, ms, by] = [pick(random, working(world)), 5 * MINUTE + random.next() * 30 * MINUTE, 10 + random.next() * 200]
      if (node === undefined || node.lagMs > 0) return
      const rate = node.bytesPerSecond
      say(world, `${node.name} is ${by.toFixed()} times slower for ${Math.round(ms / SECOND)} s`)
      const set = (bytesPerSecond: number, lagMs: number): void => {
        node.bytesPerSecond = bytesPerSecond
        node.lagMs = lagMs
        node.slowUntil = world.now
        world.transfers.speedChanged(node)
      }
      during(world, ms, () => { set(rate / by, by * 20) }, () => { set(rate, 0) })
    }
  },
  hang: {
    everyMs: 30 * MINUTE,
    run: (world, random) => {
      const [node, kind, ms] = [pick(random, working(world)), random.next(), outage(random)]
      if (node === undefined) return
      const { life } = node
      if (kind < 0.6) {
        say(world, `${node.name} hangs for ${Math.round(ms / SECOND)} s`)
        during(world, ms, () => { node.hang() }, () => {
          if (node.life === life) node.resume()
        })
      } else if (world.nodes.filter(each => each.wedged).length < 2 && spares(world, [node], 1)) {
        // Stays so until the end: others have to act in its place.
        say(world, `${node.name} answers pings and nothing else from now on`)
        world.disturb(1)
        node.wedged = true
        node.wedgedAt = world.now
      }
    }
  },
  partition: {
    everyMs: 60 * MINUTE,
    run: (world, random) => {
      const [ms, partial, share] = [outage(random), random.next() < 0.4, 0.2 + random.next() * 0.4]
      const side = new Set(shuffle(random, world.nodes.map(node => node.index)).slice(0, Math.round(share * world.nodes.length)))
      const cuts: Array<[number, number]> = []
      for (const a of side) {
        for (const b of world.nodes.keys()) if (!side.has(b) && (!partial || random.next() < 0.5)) cuts.push([a, b], [b, a])
      }
      say(world, `${partial ? 'partial ' : ''}partition of ${[...side].join(' ')} for ${Math.round(ms / SECOND)} s`)
      during(world, ms, () => { for (const [a, b] of cuts) world.network.cut(a, b, true) }, () => {
        for (const [a, b] of cuts) world.network.cut(a, b, false)
      })
    }
  },
  'one-way': {
    everyMs: 20 * MINUTE,
    run: (world, random) => {
      const [node, ms, deaf] = [pick(random, world.nodes), outage(random), random.next() < 0.5]
      const stays = random.next() < STAYS_SHARE && world.nodes.filter(each => each.halfDeaf).length < STAYS_MAX
      // A few, never half: who cannot hear has others that do.
      const others = shuffle(random, world.nodes.filter(each => each !== node)).slice(0, 1 + randomInt(random, Math.ceil(world.nodes.length / 4)))
      if (node === undefined) return
      say(world, `nothing gets ${deaf ? 'to' : 'from'} ${node.name} ${deaf ? 'from' : 'to'} ${others.map(each => each.name).join(' ')} for ${Math.round(ms / SECOND)} s`)
      const cut = (on: boolean): void => {
        for (const other of others) world.network.cut(deaf ? other.index : node.index, deaf ? node.index : other.index, on)
      }
      if (stays) {
        say(world, `${node.name} stays so`)
        world.disturb(0)
        node.halfDeaf = true
        cut(true)
        world.network.refresh()
        return
      }
      during(world, ms, () => { cut(true) }, () => { cut(false) })
    }
  },
  'message-loss': {
    everyMs: 40 * MINUTE,
    run: (world, random) => {
      const [ms, share] = [5 * MINUTE + random.next() * 30 * MINUTE, 0.01 + random.next() ** 2 * 0.7]
      if (world.network.lossShare > 0) return
      say(world, `${(100 * share).toFixed(1)} % of messages get lost for ${Math.round(ms / SECOND)} s`)
      during(world, ms, () => { world.network.lossShare = share }, () => { world.network.lossShare = 0; world.network.lossyUntil = world.now })
    }
  },
  reorder: {
    everyMs: 40 * MINUTE,
    run: (world, random) => {
      const [ms, by] = [5 * MINUTE + random.next() * 30 * MINUTE, random.next() * 20 * SECOND]
      if (world.network.reorderMs > 0) return
      during(world, ms, () => { world.network.reorderMs = by }, () => { world.network.reorderMs = 0 })
    }
  },
  replay: {
    everyMs: 40 * MINUTE,
    run: (world, random) => {
      const [ms, share] = [5 * MINUTE + random.next() * 30 * MINUTE, 0.02 + random.next() * 0.2]
      if (world.network.replayShare > 0) return
      during(world, ms, () => { world.network.replayShare = share }, () => { world.network.replayShare = 0 })
    }
  },
  'full-disk': {
    everyMs: 40 * MINUTE,
    run: (world, random) => {
      const [any, drains, ms, kind, left] = [pick(random, working(world)), random.next() < 0.5, 5 * MINUTE + random.next() * 40 * MINUTE, random.next(), random.next()]
      // Who drains often does so because its disk is failing.
      const node = (drains ? working(world).find(each => each.draining) : undefined) ?? any
      if (node === undefined || node.disk.foreign > 0 || node.readOnly) return
      const [data, ledger] = [kind < 0.7, kind >= 0.35]
      say(world, `${node.name} has a full disk${ledger ? data ? ', under the ledger too,' : ' under the ledger only' : ''} for ${Math.round(ms / SECOND)} s`)
      const set = (on: boolean): void => {
        // To the last byte, or with room for a shard or two.
        node.disk.foreign = on && data ? left < 0.5 ? node.disk.capacity : Math.max(0, node.disk.free - left * LEFT_BYTES) : 0
        node.readOnly = on && ledger
        if (on) node.fullAt = world.now
      }
      during(world, ms, () => { set(true) }, () => { set(false) })
    }
  },
  rot: {
    everyMs: 15 * MINUTE,
    run: (world, random) => {
      const node = pick(random, working(world))
      const key = pick(random, [...(node?.disk.keys() ?? [])])
      if (node !== undefined && key !== undefined) rots(world, { node, key, withinMs: world.plant?.scrubMs ?? node.settings.scrubPeriodMs })
    }
  },
  liar: {
    everyMs: HOUR,
    run: (world, random) => {
      const node = pick(random, working(world))
      if (node === undefined || world.nodes.filter(each => each.lies).length + 1 > world.nodes.length * LIAR_SHARE || !spares(world, [node], 2)) return
      say(world, `${node.name} begins to lie`)
      world.disturb(1)
      node.lies = true
      node.liesSince = world.now
      for (const key of node.disk.keys()) node.disk.rot(key, world.now)
    }
  },
  // Set at the start (world.ts), for all nodes and all the time.
  skew: { everyMs: Infinity, run: () => {} },
  // Newcomers are there from the start and begin later (world.ts).
  join: { everyMs: Infinity, run: () => {} },
  leave: {
    everyMs: 60 * MINUTE,
    run: (world, random) => {
      const node = pick(random, working(world))
      if (node === undefined || !mayGo(world, [node])) return
      say(world, `${node.name} leaves and does not come back`)
      node.leave()
      goes(world, node)
    }
  },
  'domain-loss': {
    everyMs: 80 * MINUTE,
    run: (world, random) => {
      const [zone, ms, forGood] = [pick(random, [...new Set(world.nodes.map(node => node.labels['zone']))]), outage(random), random.next() < 0.4]
      const victims = world.nodes.filter(node => node.running && node.labels['zone'] === zone)
      if (forGood && mayGo(world, victims)) {
        say(world, `zone ${zone} is lost for good`)
        for (const node of victims) goes(world, node)
      } else {
        say(world, `zone ${zone} is gone for ${Math.round(ms / SECOND)} s`)
        for (const node of victims) crash(world, node, ms + random.next() * MINUTE)
      }
    }
  },
  drain: {
    everyMs: 50 * MINUTE,
    run: (world, random) => {
      const [node, patient] = [pick(random, working(world).filter(each => !each.draining)), random.next() < 0.5]
      if (node === undefined || !mayGo(world, [node])) return
      drain(world, node, patient)
    }
  },
  pin: {
    everyMs: 40 * MINUTE,
    run: (world, random) => {
      const [model, target, off] = [pick(random, world.models.filter(each => each.at !== Infinity)), 2 + randomInt(random, 3), random.next() < 0.2]
      const node = world.nodes[model?.publisher ?? -1]
      if (model === undefined || node?.works !== true || node.lies || !node.disk.policies.has(`${model.cid} ${node.name}`) || world.now - model.changedAt < 15 * MINUTE) return
      // After a loss of the disk there may be nothing here to pin.
      if (model.shardBytes.some((_, shard) => !node.disk.heldOf(model).includes(shard))) return
      world.publish(node, model, off ? { min: 0, target: 0, max: 0 } : { min: Math.min(2, target), target, max: target + 1 })
    }
  },
  forget: {
    everyMs: 30 * MINUTE,
    run: (world, random) => {
      const [node, againMs, readds, policy] = [pick(random, working(world)), (2 + random.next() * 28) * MINUTE, random.next() < 0.5, somePolicy(random)]
      const model = pick(random, world.models.filter(each => node !== undefined && node.disk.heldOf(each).length > 0))
      if (node === undefined || model === undefined || !mayForget(world, node, model)) return
      world.disturb(0)
      node.forget(model)
      if (!readds || !model.records.has(node.name)) return
      // Its publisher adds the same files again, with other wishes: before and after all that was known of the model has been forgotten too.
      world.queue.after(againMs, () => { if (world.now < world.faultsEndAt && mayAdd(world, node, model)) world.publish(node, model, policy) })
    }
  },
  publishers: {
    everyMs: 30 * MINUTE,
    run: (world, random) => {
      const [model, who, policy, off] = [pick(random, world.models.filter(each => each.at !== Infinity)), pick(random, working(world)), somePolicy(random), random.next() < 0.4]
      if (model === undefined || world.now - model.changedAt < 15 * MINUTE) return
      const publishers = working(world).filter(node => (model.records.get(node.name)?.target ?? 0) > 0 && hasAll(node, model))
      const leaver = off && publishers.length > 1 ? pick(random, publishers) : undefined
      if (leaver !== undefined) world.publish(leaver, model, { min: 0, target: 0, max: 0 })
      else if (who !== undefined && model.records.size < PUBLISHERS_MAX && mayAdd(world, who, model)) world.publish(who, model, policy)
    }
  },
  'bad-volume': {
    everyMs: 50 * MINUTE,
    run: (world, random) => {
      const [node, paceMs, looksAfterMs] = [pick(random, working(world).filter(each => !each.draining && !each.lies)), (10 + random.next() * 60) * SECOND, random.next() < 0.6 ? (5 + random.next() * 40) * MINUTE : undefined]
      if (node === undefined || world.nodes.filter(each => each.volume.suspect).length >= SUSPECTS_MAX || !mayGo(world, [node])) return
      failVolume(world, { node, random, paceMs, looksAfterMs })
    }
  },
  'cache-pressure': {
    everyMs: 8 * MINUTE,
    run: (world, random) => {
      const [node, bytes, worst] = [pick(random, working(world)), (0.1 + random.next()) * LEFT_BYTES, random.next() < WORST_SHARE]
      if (worst) { rebootHolders(world, random); return }
      if (node === undefined) return
      say(world, `${node.name} needs room for ${Math.round(bytes)} bytes`)
      node.evict(bytes)
    }
  },
  'ledger-loss': {
    everyMs: 40 * MINUTE,
    run: (world, random) => {
      const [node, ms] = [pick(random, working(world).filter(each => !each.lies)), outage(random)]
      if (node === undefined || !othersCanTell(world, node) || !spares(world, [node], 1)) return
      say(world, `${node.name} crashes for ${Math.round(ms / SECOND)} s and loses its ledger`)
      world.disturb(0)
      node.disk.loseLedger(world.now)
      crash(world, node, ms)
    }
  },
  reboot: {
    everyMs: 45 * MINUTE,
    run: (world, random) => {
      const [node, ms] = [pick(random, working(world)), (0.2 + 0.8 * random.next()) * REBOOT_MS]
      if (node === undefined) return
      say(world, `${node.name} reboots for ${Math.round(ms / SECOND)} s`)
      world.checks.reboots(node)
      world.disturb(0)
      node.leave()
      const start = (): void => { back(node) }
      healers.get(world)?.push(start)
      world.queue.after(ms, start)
    }
  }
}

/** Volumes that have been found to fail, at once. */
const SUSPECTS_MAX = 2
/** Most that a disk which is nearly full has left. */
const LEFT_BYTES = 512 * MiB
/** Fewer than a node remembers of one model. */
const PUBLISHERS_MAX = 8

function somePolicy (random: Random): Policy {
  const target = 2 + randomInt(random, 3)
  return { min: Math.min(2, target), target, max: target + randomInt(random, 3) }
}

function hasAll (node: SimNode, model: SimModel): boolean { return node.disk.heldOf(model).length === model.shardBytes.length }

/** It has room for all of it, and remembers what it said of it before: who lost its disk has lost its identity too. */
function mayAdd (world: World, node: SimNode, model: SimModel): boolean {
  const remembers = !model.records.has(node.name) || node.disk.policies.has(`${model.cid} ${node.name}`)
  const bytes = model.shardBytes.reduce((sum, each) => sum + each, 0)
  return node.works && !node.lies && remembers && node.disk.free >= bytes && world.checks.alive(model) && [...node.pulls.values()].every(pull => pull.model !== model)
}

/** A user may remove anything but what no algorithm could bring back; the store refuses while it is being fetched. */
function mayForget (world: World, node: SimNode, model: SimModel): boolean {
  if ([...node.pulls.values()].some(pull => pull.model === model)) return false
  return spares(world, [node], 1, model)
}

/** Each record it knows is known to two others: what nobody has written down any more nobody can restore. */
function othersCanTell (world: World, node: SimNode): boolean {
  for (const [name, { sequence }] of node.disk.policies) {
    const others = working(world).filter(other => other !== node && !other.lies && (other.disk.policies.get(name)?.sequence ?? -1) >= sequence)
    if (others.length < 2) return false
  }
  return true
}

export function scheduleFaults (world: World): void {
  healers.set(world, [])
  for (const name of world.faults) {
    const random = world.random(`fault ${name}`)
    const { everyMs, run } = faults[name]
    if (everyMs === Infinity) continue
    // Half of the mean for sure, the other half as chance has it: two of the same kind seldom meet.
    for (let at = FIRST_MS + random.next() * 15 * MINUTE; at < world.faultsEndAt; at += everyMs / 2 + random.next() * everyMs) {
      world.queue.at(at, () => { run(world, random) })
    }
  }
}

/** The safety phase ends: whatever can come back does. Liars, the wedged and the half deaf stay as they are. */
export function healAll (world: World): void {
  say(world, 'the faults end')
  for (const finish of healers.get(world) ?? []) finish()
  world.network.refresh()
}
