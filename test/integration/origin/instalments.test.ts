import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB, silentLogger, systemClock, type Clock } from '../../../src/base/index.ts'
import { createHfServer } from '../../../src/hf/index.ts'
import type { ShoalNode } from '../../../src/node/types.ts'
import { OriginProtocol } from '../../../src/origin/protocol.ts'
import { BLOCK_PROTOCOL, INVENTORY_PROTOCOL } from '../../../src/transfer/messages.ts'
import type { Cluster } from '../../support/cluster.ts'
import { temporaryDirectory } from '../../support/files.ts'
import { HostilePeer } from '../../support/hostile-peer.ts'
import type { Hub } from '../../support/hub.ts'
import { lie } from '../../support/lie.ts'
import { until } from '../../support/until.ts'
import { eachWithHub, phaseOf, times } from './hub-cluster.ts'

const FILES = {
  'config.json': Buffer.from('{"model_type":"llama"}'),
  'model-1.safetensors': randomBytes(3 * MiB + 1),
  'model-2.safetensors': randomBytes(3 * MiB + 2),
  'model-3.safetensors': randomBytes(9 * MiB + 3)
}
type Path = keyof typeof FILES
const TOTAL = Object.values(FILES).reduce((sum, { length }) => sum + length, 0)

describe('origin: a model in instalments', function () {
  this.timeout(60_000)
  let hub: Hub
  let cluster: Cluster
  let signal: AbortSignal

  eachWithHub(55_000, made => { ({ hub, cluster, signal } = made) })

  const find = async (node: ShoalNode): Promise<string> => {
    const model = await node.origin?.resolve('a/b', 'main', { token: undefined })
    assert.ok(model !== undefined)
    return await model.find(signal)
  }
  const endpoints = async <T>(nodes: ShoalNode[], use: (urls: string[]) => Promise<T>): Promise<T> => {
    const servers = nodes.map(node => createHfServer({ node, host: '127.0.0.1', port: 0 }))
    for (const server of servers) await server.start()
    try {
      return await use(servers.map(({ url }) => `${url}/a/b/resolve/main`))
    } finally {
      for (const server of servers) await server.stop()
    }
  }
  /** Of all models, with those that are not shown. */
  const held = async (node: ShoalNode): Promise<string[]> => await readdir(join(cluster.directory(node), 'models'))

  it('goes out file by file at all nodes, while the rest of it comes to one', async () => {
    const nodes = await cluster.spawn(3, () => ({ clock: times(8) }))
    await cluster.connect()
    hub.push('a/b', FILES)
    hub.faults.bytesPerSecond = 1.2 * MiB
    await endpoints(nodes, async urls => {
      const get = async (url: string, path: Path): Promise<void> => {
        const answer = await fetch(`${url}/${path}`, { signal })
        assert.equal(answer.status, 200)
        assert.ok(Buffer.from(await answer.arrayBuffer()).equals(FILES[path]), path)
      }
      let isTold = false
      const watch = setInterval(() => { isTold ||= nodes.some(node => node.transfers().some(({ partOf }) => partOf === 'a/b')) }, 5)
      await Promise.all(urls.map(async url => { await get(url, 'config.json') }))
      await Promise.all(urls.flatMap(url => [get(url, 'model-1.safetensors'), get(url, 'model-2.safetensors')]))
      clearInterval(watch)
      assert.ok(isTold, 'a load of some files says what they are a part of')
      assert.deepEqual(nodes.map(node => String(phaseOf(node))).sort(), ['fetching', 'waiting', 'waiting'])
      assert.ok(hub.fileBytes < TOTAL - 2 * MiB, `${hub.fileBytes} of ${TOTAL}: all has come`)
      // What is there is no model of anybody.
      for (const node of nodes) assert.deepEqual([node.models(), (await node.status()).models.count, (await node.status()).problems], [[], 0, []])
      await Promise.all(urls.map(async url => { await get(url, 'model-3.safetensors') }))
    })
    assert.equal(hub.fileBytes, TOTAL)
    await until('all have the model', () => nodes.every(node => node.links('a/b').length === 2 && node.models()[0]?.complete === true))
    assert.equal(new Set(nodes.flatMap(node => node.models().map(({ cid }) => cid))).size, 1)
    const left = async (node: ShoalNode): Promise<number> => (await held(node)).length - 1 + (await readdir(join(cluster.directory(node), 'origin'))).length
    await until('the instalments are gone', async () => (await Promise.all(nodes.map(left))).every(count => count === 0))
    for (const node of nodes) assert.deepEqual([(await node.verify()).bad, (await node.status()).models.bytes], [[], TOTAL])
  })

  it('is gone on with by a node that was killed, and nothing of it comes twice', async () => {
    await using directory = await temporaryDirectory('instalments')
    const [node] = await cluster.spawn(1, () => ({ dataDirectory: directory.path })) as [ShoalNode]
    hub.push('a/b', FILES)
    hub.faults.bytesPerSecond = 1.5 * MiB
    find(node).catch(() => undefined)
    const noted = async (): Promise<string[]> => {
      const [key] = existsSync(join(directory.path, 'origin')) ? await readdir(join(directory.path, 'origin')) : []
      const path = join(directory.path, 'origin', key ?? '', 'instalments.json')
      return existsSync(path) ? (JSON.parse(await readFile(path, 'utf8')) as { own: string[] }).own : []
    }
    await until('three files are published', async () => (await readdir(join(directory.path, 'models'))).length >= 2 && (await noted()).length >= 2 && hub.fileBytes > 11 * MiB)
    await cluster.kill(node)
    hub.faults.bytesPerSecond = 100 * MiB
    const before = hub.fileBytes
    const [again] = await cluster.spawn(1, () => ({ dataDirectory: directory.path })) as [ShoalNode]
    assert.deepEqual(again.models(), [])
    const cid = await find(again)
    assert.ok(hub.fileBytes - before <= TOTAL - before + 256 * 1024, `${hub.fileBytes} of ${TOTAL}`)
    assert.deepEqual([again.models().map(({ cid }) => cid), await readdir(join(directory.path, 'models')), await readdir(join(directory.path, 'origin'))], [[cid], [cid], []])
    assert.deepEqual((await again.verify()).bad, [])
  })

  it('is taken over by the next when who fetches it is killed, and what that had given comes no more', async () => {
    const nodes = await cluster.spawn(2)
    await cluster.connect()
    hub.push('a/b', FILES)
    hub.faults.bytesPerSecond = 1.5 * MiB
    await endpoints(nodes, async urls => {
      const finding = nodes.map(async node => await find(node))
      for (const each of finding) each.catch(() => undefined)
      await until('one fetches, and one waits', () => nodes.map(node => String(phaseOf(node))).sort().join() === 'fetching,waiting')
      const second = nodes.findIndex(node => phaseOf(node) === 'waiting')
      for (const path of ['config.json', 'model-1.safetensors', 'model-2.safetensors'] as const) {
        const answer = await fetch(`${urls[second]}/${path}`, { signal })
        assert.ok(Buffer.from(await answer.arrayBuffer()).equals(FILES[path]), path)
      }
      assert.equal(phaseOf(nodes[second] as ShoalNode), 'waiting')
      await cluster.kill(nodes[1 - second] as ShoalNode)
      hub.faults.bytesPerSecond = 100 * MiB
      const before = hub.fileBytes
      await finding[second]
      const lacking = FILES['model-3.safetensors'].length
      assert.ok(hub.fileBytes - before <= lacking + 256 * 1024, `${hub.fileBytes - before} bytes more, and ${lacking} were lacking`)
      assert.deepEqual((await (nodes[second] as ShoalNode).verify()).bad, [])
    })
  })

  for (const isUsers of [false, true]) {
    it(`is not taken from one that has published something else${isUsers ? ', which a user here has loaded and keeps' : ''}`, async () => {
      await using directory = await temporaryDirectory('liar')
      await mkdir(directory.path, { recursive: true })
      const told = FILES['model-1.safetensors']
      const commit = hub.push('a/b', FILES)
      const lied = await lie(directory.path, commit, { 'model-1.safetensors': { told, held: randomBytes(told.length) } })
      // The liar holds it without a name, and says that it fetches.
      const [holder, node] = await cluster.spawn(2, at => at === 0 ? { dataDirectory: directory.path, settings: { origin: { upstream: undefined } } } : {}) as [ShoalNode, ShoalNode]
      await using liar = await HostilePeer.start({ swarmKey: cluster.swarmKey, transport: 'tcp' })
      await liar.network.unhandle([BLOCK_PROTOCOL, INVENTORY_PROTOCOL]) // it has the word of who holds it
      let bytesDone = 0
      let lies = true
      let listed = 0
      const protocol = new OriginProtocol({ network: liar.network, clock: systemClock, logger: silentLogger, isBanned: () => false }, {
        asked: () => lies ? [{ peerId: liar.id, state: 'fetching', cid: undefined, bytesDone: ++bytesDone, bytesTotal: 2 * TOTAL }] : [],
        peeked: async () => undefined,
        listed: () => { listed++; return [lied] }
      })
      await protocol.start()
      try {
        await cluster.connect()
        if (isUsers) await node.load(lied)
        await node.connect(liar.address)
        await endpoints([node], async ([url]) => {
          const answer = fetch(`${url}/model-1.safetensors`, { signal })
          await until('it is loaded', () => isUsers || node.peers().some(({ peerId, receivedBytes }) => peerId === holder.peerId && receivedBytes >= told.length))
          if (!isUsers) await until('it is thrown away', async () => (await held(node)).length === 0)
          // What a user keeps is read to find the lie, which on a busy machine takes longer than being asked again.
          await until('who lied is followed on, and not asked for more', async () => {
            const [asked, said] = [listed, bytesDone]
            await until('it is followed on', () => bytesDone > said + 2)
            return listed === asked
          }, isUsers ? {} : { withinMs: 1 })
          assert.equal(phaseOf(node), 'waiting')
          lies = false
          assert.ok(Buffer.from(await (await answer).arrayBuffer()).equals(told))
          await until('it is published', () => phaseOf(node) === undefined)
          assert.equal(node.models().some(({ cid }) => cid === lied), isUsers)
          assert.deepEqual(holder.models().map(({ cid }) => cid), [lied])
        })
      } finally {
        await protocol.stop()
      }
    })
  }

  it('leaves a model alone that a user has loaded and that has the same files', async () => {
    await using directory = await temporaryDirectory('first')
    await mkdir(directory.path, { recursive: true })
    await writeFile(join(directory.path, 'config.json'), FILES['config.json'])
    const [other, node] = await cluster.spawn(2, at => at === 0 ? { settings: { origin: { upstream: undefined } } } : { clock: times(8) }) as [ShoalNode, ShoalNode]
    await cluster.connect()
    const { cid } = await other.add(directory.path)
    await node.load(cid)
    hub.push('a/b', FILES)
    hub.faults.bytesPerSecond = 4 * MiB
    const seen = new Set<boolean>()
    const finding = find(node)
    let over = false
    void finding.finally(() => { over = true })
    while (!over) {
      seen.add(node.models().some(model => model.cid === cid))
      await new Promise(resolve => setTimeout(resolve, 20))
    }
    const model = await finding
    await until('the instalments are gone', async () => (await held(node)).length === 2)
    assert.deepEqual([[...seen], node.models().map(({ cid }) => cid).sort()], [[true], [cid, model].sort()])
  })

  it('is known for a part by a node that was killed and has no upstream any more', async () => {
    let aheadMs = 0
    const clock = { ...systemClock, now: () => systemClock.now() + aheadMs }
    const [node] = await cluster.spawn(1) as [ShoalNode]
    const dataDirectory = cluster.directory(node)
    hub.push('a/b', FILES)
    hub.faults.bytesPerSecond = 2 * MiB
    find(node).catch(() => undefined)
    await until('some of it is published', async () => (await held(node)).length > 0)
    await cluster.kill(node)
    const [again] = await cluster.spawn(1, () => ({ dataDirectory, clock, settings: { origin: { upstream: undefined } } })) as [ShoalNode]
    assert.ok((await readdir(join(dataDirectory, 'models'))).length > 0)
    assert.deepEqual(again.models(), [])
    aheadMs = 7_200_000
    await again.gc()
    assert.deepEqual([await readdir(join(dataDirectory, 'models')), await readdir(join(dataDirectory, 'origin'))], [[], []])
  })

  it('goes after a while from a node whose reader left', async () => {
    let factor = 8
    const clock: Clock = { ...systemClock, setTimeout: (work, delayMs) => systemClock.setTimeout(work, delayMs / factor) }
    const nodes = await cluster.spawn(2, at => at === 0 ? {} : { clock })
    await cluster.connect()
    hub.push('a/b', FILES)
    hub.faults.bytesPerSecond = MiB
    const fetcher = find(nodes[0] as ShoalNode)
    await until('one fetches', () => phaseOf(nodes[0] as ShoalNode) === 'fetching')
    const second = nodes[1] as ShoalNode
    await endpoints([second], async ([url]) => {
      const answer = await fetch(`${url}/model-1.safetensors`, { signal })
      assert.ok(Buffer.from(await answer.arrayBuffer()).equals(FILES['model-1.safetensors']))
      assert.equal((await held(second)).length, 1)
    })
    factor = 8_000 // an hour is half a second from now on
    await until('it is given up', () => phaseOf(second) === undefined)
    assert.notEqual(phaseOf(nodes[0] as ShoalNode), undefined)
    await fetcher
    await until('nothing is left', async () => (await held(second)).every(cid => second.models().some(model => model.cid === cid)) && (await readdir(join(cluster.directory(second), 'origin'))).length === 0)
  })
})
