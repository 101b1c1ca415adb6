import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ApiClient } from '../../src/api/client.ts'
import * as schemas from '../../src/api/schemas.ts'
import type { ShownModel, ShownStatus } from '../../src/api/types.ts'
import { MiB } from '../../src/base/index.ts'
import type { DrainResult } from '../../src/node/types.ts'
import { CliProcess, shoal, type Finished } from './cli-process.ts'
import { until } from '../support/until.ts'

/** What takes minutes in a data centre takes moments here. */
const HASTE = [
  'storage.donate=1GiB', 'replication.settle=200ms', 'replication.rankDelay=500ms', 'replication.grace.twoCopies=1s', 'replication.grace.default=2s',
  'network.inboundPerSecond=100'
].flatMap(pair => ['--set', pair])
const FILES = 3
const WAIT = { withinMs: 40_000, everyMs: 50 }

interface Daemon { daemon: CliProcess, peerId: string, run: (...args: string[]) => Promise<Finished>, client: ApiClient, data: string }

describe('replication from the command line', function () {
  this.timeout(120_000)
  let root = ''
  let model = ''
  let cid = ''
  const daemons = new Set<CliProcess>()
  let a: Daemon
  let b: Daemon
  let c: Daemon

  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'shoal-replicas-'))
    model = join(root, 'model')
    await mkdir(model)
    for (let i = 0; i < FILES; i++) await writeFile(join(model, `weights-${i}.bin`), randomBytes(2 * MiB))
    a = await start('a', 'zone=east')
    const invite = (await a.run('invite')).stdout.trim()
    ;[b, c] = await Promise.all([start('b', 'zone=north', invite), start('c', 'zone=west', invite)])
    await until('three know each other', async () => (await Promise.all([a, b, c].map(async ({ client }) => (await client.status()).peersConnected))).every(count => count >= 2), WAIT)
  })
  after(async () => {
    for (const daemon of daemons) if (!daemon.ended) daemon.signal('SIGKILL')
    await Promise.all([...daemons].map(async daemon => await daemon.finished))
    await rm(root, { recursive: true, force: true })
  })

  async function start (name: string, label: string, invite?: string): Promise<Daemon> {
    const data = join(root, name)
    const daemon = new CliProcess(['daemon', '--data', data, '--json', '--listen', '/ip4/127.0.0.1/tcp/0', '--label', label, ...HASTE], { env: invite === undefined ? {} : { SHOAL_JOIN: invite } })
    daemons.add(daemon)
    await daemon.until(() => daemon.stdout.includes('\n'))
    const ready = JSON.parse(daemon.stdout) as { peerId: string, api: string }
    return { daemon, data, peerId: ready.peerId, run: async (...args) => await shoal(['--data', data, ...args]), client: new ApiClient({ socketPath: ready.api }) }
  }

  const replicationOf = async ({ client }: Daemon, model = cid): Promise<ShownStatus['replication']['models'][number] | undefined> => (await client.status()).replication.models.find(({ cid }) => cid === model)
  const peerIds = (): string[] => [a, b, c].map(({ peerId }) => peerId).sort()

  it('add --replicas 3 --wait ends when three nodes have proven all of it', async () => {
    const added = await a.run('add', model, '--replicas', '3', '--wait', '--json')
    assert.equal(added.code, 0, added.stderr)
    cid = (JSON.parse(added.stdout) as { cid: string }).cid
    const { shards } = await a.client.show(cid)
    assert.equal(shards.length, FILES)
    for (const { replicas } of shards) assert.ok(replicas >= 3, `${replicas} replicas when --wait had ended`)
    // Not only said to be there: both others have all bytes, and they are right.
    for (const other of [b, c]) {
      const verified = await other.client.verify(cid)
      assert.deepEqual([verified.bytes, verified.bad], [FILES * 2 * MiB, []])
    }
  })

  it('status and show on another node tell the same, in JSON and in words', async () => {
    await until('b has proofs of all', async () => (await replicationOf(b))?.deficitShards === 0, WAIT)
    const status = jsonOf<ShownStatus>(await b.run('status', '--json'))
    schemas.Status.parse(status)
    const told = status.replication.models.find(model => model.cid === cid)
    assert.deepEqual([told?.target, told?.replicasMin, told?.shards, told?.deficitShards, told?.repairing], [3, 3, FILES, 0, 0])
    assert.deepEqual([status.replication.brake, status.replication.draining, status.replication.donateBytes, status.replication.committedBytes], [false, false, 2 ** 30, FILES * 2 * MiB])
    const words = (await b.run('status')).stdout
    assert.match(words, new RegExp(`^${cid} +3/3 +${FILES} +0 +- +0 +(now|\\S+ \\S+ ago)$`, 'm'))
    assert.match(words, /^brake +off/m)

    const shown = jsonOf<ShownModel>(await b.run('show', cid, '--json'))
    schemas.ModelDetails.parse(shown)
    assert.deepEqual(shown.shards.map(({ id, replicas }) => [id, replicas]), Array.from({ length: FILES }, (_, id) => [id, 3]))
    for (const { holders } of shown.shards) {
      assert.deepEqual(holders.map(({ peerId }) => peerId).sort(), peerIds(), 'the answering node is one of them')
      for (const { peerId, state, provenAt, labels } of holders) {
        assert.equal(state, 'proven')
        assert.ok(provenAt !== null && provenAt <= Date.now() && provenAt > Date.now() - 300_000, String(provenAt))
        assert.deepEqual(labels, { zone: peerId === a.peerId ? 'east' : peerId === b.peerId ? 'north' : 'west' })
      }
    }
    const short = (await b.run('show', cid)).stdout
    assert.match(short, /^replicas +3 of 3 at the fewest .*all 3 shards at target$/m)
    assert.match(short, /^domains +zone east, north, west$/m)
    assert.doesNotMatch(short, /^SHARD|proven/m)
    const long = (await b.run('show', cid, '--shards')).stdout
    assert.match(long, /^SHARD +SIZE +REPLICAS +HOLDER +STATE +PROVEN +LABELS$/m)
    for (const peerId of peerIds()) assert.equal(long.match(new RegExp(` ${peerId} +proven +.* zone=`, 'g'))?.length, FILES, peerId)
  })

  it('refuses what makes no sense before anything happens, and says what would', async () => {
    const wrong: Array<[string[], RegExp]> = [
      [['add', model, '--replicas', '65'], /--replicas is a whole number, 0 to 64, not "65"/],
      [['add', model, '--replicas', 'three'], /--replicas is a whole number/],
      [['pin', cid, '--replicas', '-1'], /--replicas/],
      [['drain', '--deadline', 'soon'], /is no duration; write it like/],
      [['drain', '--deadline', '0s'], /--deadline is a duration of 1ms to 30d/]
    ]
    await Promise.all(wrong.map(async ([args, message]) => {
      const { code, stdout, stderr } = await a.run(...args)
      assert.deepEqual([code, stdout], [2, ''], args.join(' '))
      assert.match(stderr, message)
    }))
    const misconfigured = await shoal(['daemon', '--data', join(root, 'none'), '--set', 'replication.min=4'])
    assert.equal(misconfigured.code, 2)
    assert.match(misconfigured.stderr, /replication\.min \(4\) must not be more than replication\.target \(3\)/)
    const notMine = await b.run('pin', cid, '--replicas', '2', '--json')
    assert.equal(notMine.code, 2, 'only the publisher changes the target')
    assert.equal((await replicationOf(b))?.target, 3)
  })

  it('pin --replicas on the publisher changes the target everywhere', async () => {
    for (const replicas of [2, 3]) {
      assert.deepEqual(jsonOf(await a.run('pin', cid, '--replicas', String(replicas), '--json')), { cid, pinned: true, replicas })
      await until(`the target is ${replicas} everywhere`, async () => (await Promise.all([a, b, c].map(async node => (await replicationOf(node))?.target))).every(target => target === replicas), WAIT)
    }
  })

  it('a drain that cannot end says what is left, and exits 1', async () => {
    const left = jsonOf<DrainResult>(await c.run('drain', '--deadline', '1s', '--json'), 1)
    schemas.DrainResult.parse(left)
    assert.equal(left.complete, false)
    assert.deepEqual(left.left.toSorted((x, y) => x.shard - y.shard).map(({ model, shard, target }) => [model, shard, target]), Array.from({ length: FILES }, (_, shard) => [cid, shard, 3]))
    for (const { replicas } of left.left) assert.equal(replicas, 2, 'the two others have it')
    const words = await c.run('drain', '--deadline', '500ms')
    assert.equal(words.code, 1)
    assert.match(words.stdout, /^MODEL +SHARD +REPLICAS\n/)
    assert.equal(words.stdout.match(new RegExp(`^${cid} +\\d +2/3$`, 'gm'))?.length, FILES)
    assert.match((await c.run('status')).stdout, /^drain +draining/m)
    await until('b sees c drain', async () => (await b.client.show(cid)).shards.every(({ holders }) => holders.some(({ peerId, state }) => peerId === c.peerId && state === 'draining')), WAIT)
    // It serves meanwhile.
    assert.equal((await c.client.verify(cid)).bad.length, 0)
  })

  it('a drain ends with 0 once another has taken over', async () => {
    const d = await start('d', 'zone=south', (await a.run('invite')).stdout.trim())
    const drained = await c.run('drain', '--deadline', '40s')
    assert.equal(drained.code, 0, drained.stdout + drained.stderr)
    assert.match(drained.stdout, /^all is handed over/)
    const { bytes, bad } = await d.client.verify(cid)
    assert.deepEqual([bytes, bad], [FILES * 2 * MiB, []])
    await until('three replicas without c', async () => (await b.client.show(cid)).shards.every(({ replicas, holders }) => replicas === 3 && holders.some(({ peerId, state }) => peerId === d.peerId && state === 'proven')), WAIT)
  })

  it('unpin on the publisher lets it go everywhere', async () => {
    assert.equal((await a.run('unpin', cid)).stdout, `unpinned ${cid}\n`)
    await until('nobody wants replicas', async () => (await Promise.all([a, b].map(async node => (await replicationOf(node))?.target ?? 0))).every(target => target === 0), WAIT)
    await until('b keeps nothing for it', async () => (await b.client.status()).replication.committedBytes === 0, WAIT)
    assert.match((await b.run('show', cid)).stdout, /^replicas +not replicated$/m)
  })

  it('Ctrl-C ends only the waiting of --wait', async () => {
    const alone = await start('alone', 'zone=none')
    const adding = new CliProcess(['--data', alone.data, 'add', model, '--replicas', '3', '--wait'])
    await adding.until(() => adding.stdout.includes('\n'))
    adding.signal('SIGINT')
    const { code, stdout, stderr } = await adding.finished
    assert.equal(code, 130)
    assert.match(stderr, /interrupted; \S+ is added and goes on being replicated/)
    const [listed] = await alone.client.models()
    assert.deepEqual([listed?.cid, listed?.complete], [stdout.trim(), true])
    assert.deepEqual([(await replicationOf(alone, stdout.trim()))?.replicasMin, (await replicationOf(alone, stdout.trim()))?.deficitShards], [1, FILES])
  })
})

function jsonOf<T> ({ stdout, stderr, code }: Finished, expected = 0): T {
  assert.equal(code, expected, stdout + stderr)
  return JSON.parse(stdout) as T
}
