import { defaultReplication as intended } from '../../src/replication/settings.ts'
import type { ReplicaMessage, ReplicationEvent } from '../../src/replication/types.ts'
import type { SimNode } from './node.ts'
import type { World } from './world.ts'

/** The view may never come to rest: after so many times the wait it counts as settled. */
const TIMES_MAX = 10

interface Restart {
  life: number
  /** By its own clock. */
  startedAt: number
  changedAt: number
  /** What each peer last said it has committed, by peer and model. */
  readonly said: Map<string, Uint8Array>
  readonly versions: Map<string, { incarnation: string, version: number, former: Set<string> }>
}

/**
 * A node that starts with promises neither repairs nor lets go nor promises to keep before what it sees of the others has been the same for
 * the time to settle; a last copy is no exception (docs/REPLICATION.md). A drain is: it counts itself out and makes copies only.
 *
 * Counts as a change what the node cannot have overlooked: a peer that came or went, another set of
 * commitments in a message that is newer than the last of that peer. So it is never stricter than the node has to be.
 */
export class Settling {
  readonly #world: World
  readonly #restarts = new Map<SimNode, Restart>()

  constructor (world: World) { this.#world = world }

  starts (node: SimNode): void {
    const now = node.local(this.#world.now)
    if (node.disk.committed.size + node.disk.lostPromises.size === 0) this.#restarts.delete(node)
    else this.#restarts.set(node, { life: node.life, startedAt: now, changedAt: now, said: new Map(), versions: new Map() })
  }

  noted (node: SimNode, event: ReplicationEvent): void {
    const restart = this.#restarts.get(node)
    if (restart === undefined) return
    if (event.type === 'peer') this.#changed(node, restart)
    else if (event.type === 'offered' && event.why !== 'drain' && !node.draining) this.#acts(node, restart, `offers ${event.model}/${event.shard} to ${event.to} (${event.why})`)
    else if (event.type === 'released' && !node.forgetting) this.#acts(node, restart, `lets go of ${event.model}/${event.shard}`)
  }

  sends (node: SimNode, message: ReplicaMessage): void {
    if (message.type !== 'release' && message.type !== 'keep') return
    const restart = this.#restarts.get(node)
    if (restart === undefined) return
    if (message.type === 'release') this.#acts(node, restart, `asks to let go of ${message.model}/${message.shard}`)
    else if (message.ok) this.#acts(node, restart, `promises to keep ${message.model}/${message.shard}`)
  }

  receives (node: SimNode, from: SimNode, message: ReplicaMessage): void {
    const restart = this.#restarts.get(node)
    if (restart === undefined) return
    if (message.type === 'commit') {
      // It took what this node offered, and what it says of itself next is no news.
      const key = `${from.name} ${message.model}`
      const said = restart.said.get(key)?.slice()
      if (said !== undefined) {
        said[message.shard >> 3] = (said[message.shard >> 3] ?? 0) | 1 << (message.shard & 7)
        restart.said.set(key, said)
      }
    }
    if (message.type !== 'state') return
    let known = restart.versions.get(from.name)
    if (known === undefined) restart.versions.set(from.name, known = { incarnation: message.incarnation, version: -1, former: new Set() })
    if (known.former.has(message.incarnation)) return
    if (known.incarnation !== message.incarnation) {
      known.former.add(known.incarnation)
      known.incarnation = message.incarnation
    } else if (message.version < known.version) {
      return
    }
    known.version = message.version
    for (const { model, committed } of message.models) {
      // Of what it has been offered it hears before any of it is here.
      if (node.replicator?.policyOf(model) === undefined) continue
      const key = `${from.name} ${model}`
      const before = restart.said.get(key)
      restart.said.set(key, committed)
      if (committed.some((byte, at) => byte !== (before?.[at] ?? 0))) this.#changed(node, restart)
    }
  }

  #changed (node: SimNode, restart: Restart): void {
    if (this.#isSettled(node, restart)) this.#restarts.delete(node)
    else restart.changedAt = node.local(this.#world.now)
  }

  #acts (node: SimNode, restart: Restart, what: string): void {
    if (restart.life !== node.life || this.#isSettled(node, restart)) { this.#restarts.delete(node); return }
    const seconds = (since: number): number => Math.round((node.local(this.#world.now) - since) / 1_000)
    this.#world.checks.fail('nobody acts before its view has settled', `${node.name} ${what} ${seconds(restart.startedAt)} s after it started and ${seconds(restart.changedAt)} s after its view last changed`)
  }

  #isSettled (node: SimNode, { startedAt, changedAt }: Restart): boolean {
    const now = node.local(this.#world.now)
    return now - changedAt >= intended.settleMs || now - startedAt >= intended.settleMs * TIMES_MAX
  }
}
