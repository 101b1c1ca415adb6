import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createApiServer, type ApiServer, ApiClient } from '../../../src/api/index.ts'
import * as schemas from '../../../src/api/schemas.ts'
import type { ReplicationProgress, ShoalNode } from '../../../src/node/types.ts'
import { CID, FakeNode, PROGRESS } from './fake-node.ts'
import { until } from '../../support/until.ts'

describe('api: replication', () => {
  let directory: string
  let fake: FakeNode
  let server: ApiServer
  let client: ApiClient

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'shoal-replication-'))
    fake = new FakeNode()
    server = createApiServer({ node: fake as unknown as ShoalNode, socketPath: join(directory, 's') })
    await server.start()
    client = new ApiClient({ socketPath: server.socketPath })
  })
  afterEach(async () => {
    await server.stop()
    await rm(directory, { recursive: true })
  })

  const put = async (headers: Record<string, string>, body: string): Promise<{ status: number, text: string }> => await new Promise((resolve, reject) => {
    const sent = request({ socketPath: server.socketPath, path: `/v1/models/${CID}/pin`, method: 'PUT', headers: { host: 'localhost', 'content-length': Buffer.byteLength(body), ...headers }, agent: false }, answer => {
      let text = ''
      answer.setEncoding('utf8').on('data', (part: string) => { text += part }).on('end', () => { resolve({ status: answer.statusCode ?? 0, text }) })
    })
    sent.on('error', reject).end(body)
  })

  it('names models by cid in status, with times of the calendar', async () => {
    const before = Date.now()
    const status = await client.status()
    schemas.Status.parse(status)
    const [model, other] = status.replication.models
    assert.deepEqual({ ...model, oldestProofAt: 0 }, { cid: CID, min: 2, target: 3, max: 5, replicasMin: 1, shards: 2, deficitShards: 1, deficitBytes: 5, repairing: 1, oldestProofAt: 0, secondsLeft: 40 })
    assert.ok((model?.oldestProofAt ?? 0) >= before - 1_000 && (model?.oldestProofAt ?? 0) <= Date.now() - 1_000)
    assert.ok(other !== undefined && !('oldestProofAt' in other) && !('secondsLeft' in other))
    assert.deepEqual([status.replication.brake, status.replication.durability, 'repairMs' in status.replication], [true, 0.5, false])
  })

  it('shows each shard with its holders, their proofs as times or null', async () => {
    const before = Date.now()
    const shown = await client.show(CID)
    schemas.ModelDetails.parse(shown)
    assert.equal(shown.replication?.secondsLeft, 40)
    assert.deepEqual([shown.shardCount, shown.replication?.target, shown.shards.map(({ id, replicas, repairing }) => [id, replicas, repairing])], [2, 3, [[0, 1, false], [1, 1, true]]])
    const [proven, claimed] = shown.shards[1]?.holders ?? []
    assert.deepEqual({ ...proven, provenAt: 0 }, { peerId: 'p', state: 'proven', provenAt: 0, labels: { zone: 'a' } })
    assert.ok((proven?.provenAt ?? 0) >= before - 1_000 && (proven?.provenAt ?? 0) <= Date.now() - 1_000)
    assert.deepEqual(claimed, { peerId: 'q', state: 'claimed', provenAt: null, labels: {} })
    fake.known = false
    assert.deepEqual((await client.show(CID)).shards, [])
    const broken = new Error('a bug')
    fake.shards = () => { throw broken }
    await assert.rejects(client.show(CID), { name: 'InternalError' })
  })

  it('passes on how many replicas are wanted, of add and of pin, and refuses what makes no sense', async () => {
    await client.add('/m', { replicas: 4 })
    await client.add('/m')
    assert.deepEqual(await client.pin(CID, { replicas: 0 }), { cid: CID, pinned: true, replicas: 0 })
    assert.deepEqual(await client.pin(CID), { cid: CID, pinned: true })
    assert.deepEqual(fake.calls, [['add', '/m', 4], ['add', '/m', undefined], ['pin', CID, 0], ['pin', CID, undefined]])
    await assert.rejects(client.pin(CID, { replicas: 13 }), { name: 'UsageError', message: /did not publish/ })
    fake.calls.length = 0
    for (const replicas of [-1, 65, 2.5, NaN]) {
      await assert.rejects(client.add('/m', { replicas }), { name: 'UsageError', message: /replicas/ })
      await assert.rejects(client.pin(CID, { replicas }), { name: 'UsageError', message: /replicas/ })
    }
    assert.deepEqual(fake.calls, [])
  })

  it('takes a pin without a body, named JSON or not, and passes over no body that is there', async () => {
    const json = { 'content-type': 'application/json' }
    for (const headers of [{}, json]) assert.equal((await put(headers, '')).status, 200, JSON.stringify(headers))
    assert.deepEqual(JSON.parse((await put(json, '{}')).text), { cid: CID, pinned: true })
    assert.deepEqual(JSON.parse((await put({ 'content-type': 'application/json; charset=utf-8' }, '{"replicas":5}')).text), { cid: CID, pinned: true, replicas: 5 })
    fake.calls.length = 0
    const wrong: Array<[Record<string, string>, string]> = [[{}, '{"replicas":5}'], [{ 'content-type': 'application/x-www-form-urlencoded' }, '{"replicas":5}'], [json, '{'], [json, 'null'], [json, '{"replica":5}']]
    for (const [headers, body] of wrong) {
      const { status, text } = await put(headers, body)
      assert.deepEqual([status, schemas.ErrorBody.parse(JSON.parse(text)).error.name], [400, 'UsageError'], `${JSON.stringify(headers)} ${body}`)
    }
    assert.deepEqual(fake.calls, [])
  })

  it('streams the wait for replicas: progress, then the end; who leaves is not waited for', async () => {
    const seen: ReplicationProgress[] = []
    const result = await client.replicated(CID, { onProgress: progress => { seen.push(progress) } })
    assert.deepEqual(seen, [PROGRESS])
    assert.equal(result.cid, CID)
    assert.ok(result.seconds >= 0.04)
    const stopping = new AbortController()
    const waiting = client.replicated(CID, { signal: stopping.signal, onProgress: () => { stopping.abort() } })
    await assert.rejects(waiting, { name: 'AbortError' })
    await until('the node waits for nobody', () => fake.calls.includes('left'), { withinMs: 5_000 })
    await assert.rejects(client.replicated('nonsense'), { name: 'InvalidCidError' })
  })

  it('streams a drain, and tells what is left', async () => {
    const seen: unknown[] = []
    const result = await client.drain({ deadlineMs: 90_000, onProgress: progress => { seen.push(progress) } })
    assert.deepEqual(schemas.DrainResult.parse(result), { complete: false, seconds: 2, left: [{ model: CID, shard: 1, replicas: 0, target: 3 }] })
    assert.deepEqual(seen, [{ shards: 2, shardsDone: 1, bytesDone: 5, bytesTotal: 10 }])
    fake.drainComplete = true
    assert.equal((await client.drain()).complete, true)
    assert.deepEqual(fake.calls, [['drain', 90_000], ['drain', undefined]])
    for (const deadlineMs of [0, -1, 0.5, 1e12]) await assert.rejects(client.drain({ deadlineMs }), { name: 'UsageError' })
  })

  it('counts what is not well over all models, times what was restored, and lets go of the node', async () => {
    for (const ms of [500, 40_000]) fake.events.emit('replication:restored', { cid: CID, ms })
    const text = await new Promise<string>((resolve, reject) => {
      const sent = request({ socketPath: server.socketPath, path: '/metrics', headers: { host: 'localhost' }, agent: false }, answer => {
        let text = ''
        answer.setEncoding('utf8').on('data', (part: string) => { text += part }).on('end', () => { resolve(text) })
      })
      sent.on('error', reject).end()
    })
    const expected: Record<string, number> = {
      replication_deficit_shards: 1,
      replication_deficit_bytes: 5,
      replication_repairing_shards: 1,
      // The model that was let go has none, and that is no alarm.
      replication_replicas_min: 1,
      replication_committed_bytes: 10,
      replication_pending_bytes: 3,
      replication_donated_bytes: 1_000,
      replication_brake: 1,
      replication_draining: 0,
      scrub_progress_ratio: 0.5,
      scrub_bad_blocks: 2,
      scrub_volume_suspect: 1,
      replication_repair_bytes_total: 11,
      replication_repairs_total: 12,
      replication_proofs_asked_total: 13,
      replication_proofs_failed_total: 14,
      replication_released_total: 15,
      replication_messages_total: 16,
      replication_message_bytes_total: 17,
      replication_restore_seconds_sum: 40.5,
      replication_restore_seconds_count: 2,
      'replication_restore_seconds_bucket{le="1"}': 1,
      'replication_restore_seconds_bucket{le="60"}': 2
    }
    const lines = text.split('\n')
    for (const [name, value] of Object.entries(expected)) assert.ok(lines.includes(`shoal_${name} ${value}`), `${name} is not ${value}: ${lines.find(line => line.startsWith(`shoal_${name} `)) ?? 'absent'}`)
    assert.equal(text.includes(CID), false)
    assert.equal(fake.events.listenerCount('replication:restored'), 1)
    await server.stop()
    assert.equal(fake.events.listenerCount('replication:restored'), 0)
  })
})
