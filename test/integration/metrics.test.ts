import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { createApiServer, type ApiServer } from '../../src/api/index.ts'
import { EndpointTraffic } from '../../src/api/endpoint-metrics.ts'
import { GiB, MiB } from '../../src/base/index.ts'
import { createHfServer } from '../../src/hf/index.ts'
import type { ShoalNode } from '../../src/node/types.ts'
import { Cluster } from '../support/cluster.ts'
import { until } from '../support/until.ts'

/** What a Grafana dashboard must have to be imported and shown (schema version 39). */
const Target = z.object({ refId: z.string(), expr: z.string().min(1), legendFormat: z.string(), datasource: z.object({ type: z.literal('prometheus'), uid: z.literal('${datasource}') }) })
const Place = z.object({ h: z.int().min(1), w: z.int().min(1).max(24), x: z.int().min(0).max(23), y: z.int().min(0) })
const Panel = z.object({ id: z.int(), type: z.enum(['row', 'stat', 'timeseries']), title: z.string().min(1), gridPos: Place, targets: z.array(Target).optional() })
const Dashboard = z.object({
  title: z.string(), uid: z.string(), schemaVersion: z.int().min(39), panels: z.array(Panel),
  templating: z.object({ list: z.array(z.object({ name: z.string(), type: z.string() })) }), time: z.object({ from: z.string(), to: z.string() })
})

interface Sample { name: string, labels: Record<string, string>, value: number }

describe('metrics', () => {
  let root = ''
  let cluster: Cluster
  let server: ApiServer
  let loader: ShoalNode
  let cid = ''

  const read = async (socketPath = server.socketPath): Promise<string> => await new Promise((resolve, reject) => {
    request({ socketPath, path: '/metrics', headers: { host: 'localhost' }, agent: false }, answer => {
      let text = ''
      answer.setEncoding('utf8').on('data', (part: string) => { text += part }).on('end', () => { resolve(text) }).on('error', reject)
    }).on('error', reject).end()
  })

  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'shoal-metrics-'))
    await writeFile(join(root, 'weights.bin'), randomBytes(8 * MiB))
    cluster = new Cluster({ transport: 'tcp' })
    const [publisher, second] = await cluster.spawn(2, () => ({ settings: { storage: { quota: GiB, donate: GiB }, replication: { settleMs: 0, min: 1, target: 2, max: 3 } } }))
    assert.ok(publisher !== undefined && second !== undefined)
    loader = second
    await cluster.connect()
    server = createApiServer({ node: loader, socketPath: join(root, 'api.sock'), processMetrics: true })
    await server.start()
    cid = (await publisher.add(join(root, 'weights.bin'))).cid
    await publisher.replicated(cid)
    await publisher.add(join(root, 'weights.bin'), { replicas: 0 })
    await loader.load(cid)
  })
  after(async () => {
    await server.stop()
    await cluster.teardown()
    await rm(root, { recursive: true, force: true })
  })

  it('has one prefix, base units and types, and no label whose values grow', async () => {
    const text = await read()
    const types = typesIn(text)
    assert.ok(types.size > 80, `${types.size}`)
    const values = new Map<string, Set<string>>()
    for (const { name, labels } of samplesIn(text)) {
      assert.match(name, /^shoal_[a-z0-9_]+$/)
      assert.ok(types.has(name) || types.has(name.replace(/_(bucket|sum|count)$/, '')), name)
      for (const [label, value] of Object.entries(labels)) values.set(`${name} ${label}`, (values.get(`${name} ${label}`) ?? new Set()).add(value))
    }
    for (const [label, seen] of values) assert.ok(seen.size <= 40, `${label} has ${seen.size} values`)
    for (const [name, type] of types) {
      // prom-client's own of Node are gauges that end so.
      if (!name.startsWith('shoal_nodejs_')) assert.equal(name.endsWith('_total'), type === 'counter', `${name} is a ${type}`)
      assert.doesNotMatch(name, /_(ms|milliseconds|kib|mib|kb|mb|percent|minutes)(_|$)/, name)
    }
    for (const secret of [cid, loader.peerId, root]) assert.equal(text.includes(secret), false)
  })

  it('tells how late the event loop was since the last scrape', async () => {
    const lag = async (which: string): Promise<number> => samplesIn(await read()).find(({ name }) => name === `shoal_nodejs_eventloop_lag_${which}_seconds`)?.value ?? NaN
    await lag('max')
    await new Promise(resolve => { setTimeout(resolve, 150) })
    const until = performance.now() + 400
    while (performance.now() < until);
    await new Promise(resolve => { setTimeout(resolve, 150) })
    const late = await lag('max')
    assert.ok(late >= 0.28 && late < 5, `${late} s`)
    await new Promise(resolve => { setTimeout(resolve, 250) })
    assert.ok(await lag('max') < late)
    assert.ok(await lag('p99') >= 0)
  })

  it('counts what a load did', async () => {
    const samples = samplesIn(await read())
    const value = (name: string, labels: Record<string, string> = {}): number | undefined => samples.find(sample => sample.name === name && Object.entries(labels).every(([label, value]) => sample.labels[label] === value))?.value
    assert.equal(value('shoal_models', { state: 'complete' }), 1)
    assert.ok((value('shoal_received_bytes_total') ?? 0) >= 8 * MiB)
    assert.equal(value('shoal_peers', { state: 'connected' }), 1)
    assert.equal(value('shoal_peer_transports', { transport: 'lane' }), 1)
    assert.equal(value('shoal_loads_total', { result: 'failed' }), 0)
    assert.equal(value('shoal_storage_quota_bytes'), GiB)
    assert.equal(value('shoal_loads_running', { phase: 'loading' }), 0)
    assert.ok((value('shoal_http_request_seconds_count') ?? 0) >= 1)
  })

  it('counts what the Hugging Face endpoint answers', async () => {
    const traffic = new EndpointTraffic()
    const counting = createApiServer({ node: loader, socketPath: join(root, 'counting.sock'), endpoint: traffic })
    const endpoint = createHfServer({ node: loader, host: '127.0.0.1', port: 0, traffic })
    await Promise.all([counting.start(), endpoint.start()])
    try {
      const answer = await fetch(`${endpoint.url}/cid/${cid}/resolve/main/weights.bin`)
      assert.equal((await answer.arrayBuffer()).byteLength, 8 * MiB)
      assert.equal((await fetch(`${endpoint.url}/no/body/resolve/main/x`)).status, 404)
      // An answer counts when its end has left, which the client may see a moment earlier.
      let text = ''
      await until('both answers are counted', async () => (text = await read(counting.socketPath)).includes('shoal_hf_requests_total{status="404"} 1'))
      const value = (name: string, labels: Record<string, string> = {}): number => samplesIn(text).find(sample => sample.name === name && Object.entries(labels).every(([label, value]) => sample.labels[label] === value))?.value ?? NaN
      assert.deepEqual([value('shoal_hf_requests_total', { status: '200' }), value('shoal_hf_requests_total', { status: '404' }), value('shoal_hf_first_byte_seconds_count')], [1, 1, 1])
      assert.ok(value('shoal_hf_sent_bytes_total') > 8 * MiB && value('shoal_hf_sent_bytes_total') < 8 * MiB + 4_096)
    } finally {
      await Promise.all([counting.stop(), endpoint.stop()])
    }
  })

  it('feeds every query of the dashboard', async () => {
    const dashboard = Dashboard.parse(JSON.parse(await readFile(new URL('../../config/grafana/shoal.json', import.meta.url), 'utf8')))
    assert.deepEqual(dashboard.panels.filter(panel => panel.type === 'row').map(panel => panel.title), ['Overview', 'Transfers', 'Replication', 'Storage', 'Announce', 'Process', 'Hugging Face'])
    assert.equal(new Set(dashboard.panels.map(panel => panel.id)).size, dashboard.panels.length)
    const taken = new Set<string>()
    for (const { title, gridPos: { x, y, w, h } } of dashboard.panels) {
      assert.ok(x + w <= 24, title)
      for (let column = x; column < x + w; column++) {
        for (let line = y; line < y + h; line++) {
          assert.equal(taken.has(`${column} ${line}`), false, `${title} lies over another panel`)
          taken.add(`${column} ${line}`)
        }
      }
    }
    const text = await read()
    const types = typesIn(text)
    const samples = samplesIn(text)
    let selectors = 0
    for (const { type, title, targets = [] } of dashboard.panels) {
      if (type === 'row') continue
      assert.ok(targets.length > 0, title)
      assert.equal(new Set(targets.map(({ refId }) => refId)).size, targets.length, title)
      for (const { expr, legendFormat } of targets) {
        const used = [...expr.matchAll(/\b(shoal_[a-z0-9_]+)(\{[^}]*\})?/g)]
        assert.ok(used.length > 0, expr)
        for (const [, name = '', matchers = ''] of used) {
          selectors++
          assert.ok(types.has(name) || types.get(name.replace(/_bucket$/, '')) === 'histogram', `${title} asks for ${name}, which no node has`)
          assert.ok(matchers.includes('job=~"$job",instance=~"$instance"'), `${title}: ${expr}`)
          const wanted = [...matchers.matchAll(/([a-z]+)="([^"]*)"/g)].map(([, label = '', value = '']) => [label, value] as const)
          // Of those that are absent until something has happened there may be no sample.
          const of = samples.filter(sample => sample.name === name)
          if (of.length > 0) assert.ok(of.some(({ labels }) => wanted.every(([label, value]) => labels[label] === value)), `${title}: no sample fits ${name}${matchers}`)
          else assert.ok(ABSENT_AT_FIRST.includes(name), `${name} has no sample`)
          const shown = [...`${legendFormat} ${/by \(([a-z, ]+)\)/.exec(expr)?.[1]?.replaceAll(/\w+/g, '{{$&}}') ?? ''}`.matchAll(/\{\{(\w+)\}\}/g)].map(match => match[1] ?? '')
          for (const label of shown) assert.ok(label === 'instance' || of.length === 0 || of.some(({ labels }) => label in labels), `${title} shows ${label}, which ${name} has not`)
          const range = expr.includes(`${name}${matchers}[`)
          assert.equal(range, types.get(name) === 'counter' || name.endsWith('_bucket'), `${title}: a counter or histogram wants a range, a gauge none: ${expr}`)
        }
      }
    }
    assert.ok(selectors > 60)
  })
})

/** Their help says so. */
const ABSENT_AT_FIRST = ['shoal_peer_round_trip_seconds', 'shoal_replication_remaining_seconds', 'shoal_announce_swept_timestamp_seconds', 'shoal_replication_oldest_proof_age_seconds']

function typesIn (text: string): Map<string, string> {
  return new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name = '', type = '']) => [name, type]))
}

function samplesIn (text: string): Sample[] {
  return text.split('\n').filter(line => line !== '' && !line.startsWith('#')).map(line => {
    const [, name = '', labels = '', value = ''] = /^([a-z0-9_]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? []
    assert.notEqual(name, '', line)
    return { name, labels: Object.fromEntries([...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, label = '', text = '']) => [label, text])), value: Number(value) }
  })
}
