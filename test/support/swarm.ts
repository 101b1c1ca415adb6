import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { NodeProcess } from '../../scripts/lib/spawn-node.ts'
import type { PartialSettings } from '../../src/node/init.ts'
import type { ReplicationStatus } from '../../src/node/types.ts'
import type { VerifyResult } from '../../src/storage/store.ts'
import { until } from './until.ts'

/** Where a node process runs: its address, and the command that puts it there. */
export interface Place { address: string, prefix: readonly string[] }

/** Node processes that hold models for each other, by number; killed, stopped and started again under the same data. */
export class Swarm implements AsyncDisposable {
  readonly nodes: Array<NodeProcess | undefined> = []
  readonly #root: string
  readonly #settings: PartialSettings
  readonly #places: readonly Place[]
  readonly #swarmKeyHex = randomBytes(32).toString('hex')
  readonly #labels: ReadonlyArray<Record<string, string>>
  readonly #clockTimes: number

  constructor (root: string, settings: PartialSettings, options: { places?: readonly Place[], labels?: ReadonlyArray<Record<string, string>>, clockTimes?: number } = {}) {
    this.#root = root
    this.#settings = settings
    this.#places = options.places ?? []
    this.#labels = options.labels ?? []
    this.#clockTimes = options.clockTimes ?? 1
  }

  get live (): NodeProcess[] { return this.nodes.filter(node => node !== undefined) }

  at (number: number): NodeProcess {
    const node = this.nodes[number]
    assert(node !== undefined, `node ${number} does not run`)
    return node
  }

  async start (number: number): Promise<NodeProcess> {
    const place = this.#places[number]
    const node = await NodeProcess.start({
      dataDirectory: join(this.#root, `node-${number}`),
      swarmKeyHex: this.#swarmKeyHex,
      clockTimes: this.#clockTimes,
      settings: {
        ...this.#settings,
        listen: [`/ip4/${place?.address ?? '127.0.0.1'}/tcp/0`],
        network: { inboundPerSecond: 1_000 },
        join: this.live.flatMap(other => other.multiaddrs),
        ...(this.#labels[number] === undefined ? {} : { labels: this.#labels[number] })
      }
    }, place?.prefix)
    this.nodes[number] = node
    return node
  }

  /** At the same time; then each is connected to all. */
  async startAll (count: number): Promise<void> {
    await Promise.all(Array.from({ length: count }, async (_, number) => { await this.start(number) }))
    await Promise.all(this.live.flatMap((node, at) => this.live.slice(0, at).map(async other => { await node.connect(other.multiaddrs[0] ?? '') })))
  }

  async kill (number: number): Promise<void> {
    const node = this.at(number)
    this.nodes[number] = undefined
    await node.kill()
  }

  async stop (number: number): Promise<void> {
    const node = this.at(number)
    this.nodes[number] = undefined
    await node.stop()
  }

  /** Replicas of each shard, as those see it who hold it: the fewest any of them counts. */
  async replicas (cid: string, nodes = this.live): Promise<number[]> {
    const fewest: number[] = []
    for (const node of nodes) {
      const shards = await node.shards(cid).catch(() => []) // it knows nothing of the model
      for (const { shard, replicas, holders } of shards) {
        fewest[shard] ??= NaN
        if (holders.some(({ peerId, state }) => peerId === node.peerId && state === 'proven')) fewest[shard] = Math.min(replicas, Number.isNaN(fewest[shard]) ? Infinity : fewest[shard])
      }
    }
    return fewest
  }

  /** Committed copies of each shard on the live nodes, as each says of itself: no proofs, no views. */
  async copies (cid: string): Promise<number[]> {
    const copies: number[] = []
    for (const node of this.live) {
      for (const { shard, holders } of await node.shards(cid).catch(() => [])) {
        const own = holders.some(({ peerId, state }) => peerId === node.peerId && state === 'proven')
        copies[shard] = (copies[shard] ?? 0) + (own ? 1 : 0)
      }
    }
    return copies
  }

  /** Numbers of the nodes that hold a shard. */
  async holders (cid: string, shard: number): Promise<number[]> {
    const holding: number[] = []
    for (const [number, node] of this.nodes.entries()) {
      const own = (await node?.shards(cid).catch(() => []))?.find(status => status.shard === shard)
      if (own?.holders.some(({ peerId, state }) => peerId === node?.peerId && state === 'proven') === true) holding.push(number)
    }
    return holding
  }

  /** What the dead held is counted until they are found to be dead; after that, `replicas` is the truth. */
  async untilMissed (cid: string, peerIds: readonly string[], timeoutMs: number): Promise<void> {
    await until('the dead are missed', async () => {
      for (const node of this.live) {
        const shards = await node.shards(cid).catch(() => [])
        if (shards.some(({ holders }) => holders.some(({ peerId, state }) => peerIds.includes(peerId) && state !== 'down'))) return false
      }
      return true
    }, { withinMs: timeoutMs, everyMs: 200 })
  }

  async untilReplicated (cid: string, target: number, timeoutMs: number): Promise<void> {
    let seen: number[] = []
    await until(`${target} replicas of each shard`, async () => {
      seen = await this.replicas(cid)
      return seen.length > 0 && seen.every(replicas => replicas >= target)
    }, { withinMs: timeoutMs, everyMs: 200, detail: () => `; replicas ${seen.join(' ')}` })
  }

  async replication (): Promise<ReplicationStatus[]> { return await Promise.all(this.live.map(async node => (await node.status()).replication)) }

  async repairBytes (): Promise<number> { return (await this.replication()).reduce((sum, { counters }) => sum + counters.repairBytes, 0) }

  async verify (): Promise<VerifyResult['bad']> {
    const results = []
    for (const node of this.live) results.push(await node.verify())
    return results.flatMap(({ bad }) => bad)
  }

  async [Symbol.asyncDispose] (): Promise<void> { await Promise.all(this.live.map(async node => { await node.kill() })) }
}
