import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, readdir, readlink, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as tick } from 'node:timers/promises'
import { promisify } from 'node:util'
import { createApiServer, type ApiServer } from '../../src/api/index.ts'
import { KiB, MiB } from '../../src/base/index.ts'
import { open, type LoadProgress, type OpenedModel } from '../../src/loader/index.ts'
import { hashMetadata, readSafetensors, type Tensor } from '../../src/model/index.ts'
import { createNode } from '../../src/node/index.ts'
import type { PartialSettings } from '../../src/node/init.ts'
import type { ShoalNode } from '../../src/node/types.ts'
import { writeSyntheticModel } from '../../scripts/lib/synthetic-model.ts'
import { Cluster } from '../support/cluster.ts'
import { until } from '../support/until.ts'

/** Slow enough that a load of MODEL_BYTES is seen half-way, fast enough for a test. */
const SLOW: PartialSettings = { transfer: { uploadBytesPerSecond: 8 * MiB } }
const MODEL_BYTES = 16 * MiB

function safetensors (tensors: Record<string, { dtype: string, shape: number[], bytes: Uint8Array }>, padding = 0): Buffer {
  let at = 0
  const json = JSON.stringify(Object.fromEntries(Object.entries(tensors).map(([name, { dtype, shape, bytes }]) => [name, { dtype, shape, data_offsets: [at, at += bytes.length] }]))) + ' '.repeat(padding)
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(Buffer.byteLength(json)))
  return Buffer.concat([length, Buffer.from(json), ...Object.values(tensors).map(({ bytes }) => bytes)])
}

async function tensorsOf (path: string): Promise<Tensor[]> {
  const bytes = await readFile(path)
  return (await readSafetensors(async (offset, length) => bytes.subarray(offset, offset + length), bytes.length)).tensors
}

describe('loader', function () {
  let root = ''
  let source = ''
  let cluster = new Cluster({ transport: 'tcp' })
  const servers: ApiServer[] = []
  const opened: OpenedModel[] = []

  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'shoal-loader-'))
    source = join(root, 'source')
    await writeSyntheticModel(source, { bytes: MODEL_BYTES, seed: 5 })
  })
  beforeEach(() => { cluster = new Cluster({ transport: 'tcp' }) })
  afterEach(async () => {
    await Promise.all(opened.splice(0).map(async model => { await model.close() }))
    await Promise.all(servers.splice(0).map(async server => { await server.stop() }))
    await cluster.teardown()
  })
  after(async () => { await rm(root, { recursive: true, force: true }) })

  let sockets = 0
  async function serve (node: ShoalNode): Promise<string> {
    const server = createApiServer({ node, socketPath: join(root, `${sockets++}.sock`) })
    await server.start()
    servers.push(server)
    return server.socketPath
  }

  async function opening (...args: Parameters<typeof open>): Promise<OpenedModel> {
    const model = await open(...args)
    opened.push(model)
    return model
  }

  /** A node that has the model and uploads slowly, and one whose daemon has nothing yet. */
  async function pair (path = source, settings: PartialSettings = {}): Promise<{ cid: string, socket: string, seeder: ShoalNode, node: ShoalNode }> {
    const [seeder, node] = await cluster.spawn(2, position => ({ settings: position === 0 ? SLOW : settings }))
    assert.ok(seeder !== undefined && node !== undefined)
    await cluster.connect()
    const { cid } = await seeder.add(path)
    return { cid, socket: await serve(node), seeder, node }
  }

  async function alone (path: string, options: { inPlace?: boolean } = {}): Promise<{ cid: string, socket: string, node: ShoalNode }> {
    const [node] = await cluster.spawn(1)
    assert.ok(node !== undefined)
    const { cid } = await node.add(path, options)
    return { cid, socket: await serve(node), node }
  }

  it('reads a complete model at once', async () => {
    const { cid, socket } = await alone(source)
    const model = await opening(cid, { socket })
    const names = (await readdir(source)).sort()
    assert.deepEqual(model.files.map(file => file.path), names)
    const directory = await model.path()
    for (const name of names) {
      const content = await readFile(join(source, name))
      assert.deepEqual(await readFile(join(directory, name)), content)
      const file = model.file(name)
      assert.equal(file.size, content.length)
      assert.equal(file.complete, true)
      assert.deepEqual(Buffer.from(await file.read(0, file.size)), content)
      assert.deepEqual(Buffer.from(await file.read(file.size >> 1, 7)), content.subarray(file.size >> 1, (file.size >> 1) + 7))
      assert.equal((await file.read(file.size, 0)).length, 0)
    }
    const result = await model.done
    assert.equal(result.bytes, model.files.reduce((sum, file) => sum + file.size, 0))
    assert.deepEqual(model.progress(), { phase: 'done', bytesDone: result.bytes, bytesTotal: result.bytes, rate: 0, peers: 0, secondsLeft: 0 })
  })

  it('gives a tensor as soon as its blocks are here, while the rest still loads', async () => {
    const { cid, socket } = await pair()
    const phases = new Set<string>()
    const model = await opening(cid, { socket, onProgress: progress => { phases.add(progress.phase) } })
    let done = false
    void model.done.then(() => { done = true }, () => undefined)
    const { weight_map: weightMap } = JSON.parse(await readFile(join(source, 'model.safetensors.index.json'), 'utf8')) as { weight_map: Record<string, string> }
    const name = weightMap['model.norm.weight'] ?? ''
    const bytes = await readFile(join(source, name))
    const wanted = (await tensorsOf(join(source, name))).find(tensor => tensor.name === 'model.norm.weight')
    assert.ok(wanted !== undefined)
    const tensor = await model.tensor('model.norm.weight')
    assert.equal(done, false, 'the tensor came only with the end of the load')
    assert.deepEqual({ name: tensor.name, dtype: tensor.dtype, shape: tensor.shape, offset: tensor.offset, length: tensor.length, file: tensor.file }, { ...wanted, file: name })
    assert.ok(tensor.data instanceof Uint16Array)
    assert.deepEqual(Buffer.from(tensor.data.buffer), bytes.subarray(wanted.offset, wanted.offset + wanted.length))
    await model.done
    assert.ok(phases.has('loading') && phases.has('done'))
    const directory = await model.path()
    for (const file of model.files) assert.deepEqual(await readFile(join(directory, file.path)), await readFile(join(source, file.path)))
  })

  it('lists the tensors of all files by file and offset, and aligns what is not aligned in the file', async () => {
    const directory = join(root, 'odd')
    await mkdir(directory)
    const f64 = new Uint8Array(Float64Array.of(Math.PI, -0, NaN).buffer)
    const i64 = new Uint8Array(BigInt64Array.of(-1n, 2n ** 62n).buffer)
    await writeFile(join(directory, 'a.safetensors'), safetensors({ byte: { dtype: 'U8', shape: [1], bytes: Uint8Array.of(9) }, f64: { dtype: 'F64', shape: [3], bytes: f64 }, i64: { dtype: 'I64', shape: [2, 1], bytes: i64 }, both: { dtype: 'BOOL', shape: [], bytes: Uint8Array.of(1) } }, 3))
    await writeFile(join(directory, 'b.safetensors'), safetensors({ both: { dtype: 'BOOL', shape: [], bytes: Uint8Array.of(0) }, none: { dtype: 'F32', shape: [0, 4], bytes: new Uint8Array(0) } }))
    const { cid, socket } = await alone(directory)
    const model = await opening(cid, { socket })
    assert.deepEqual((await model.tensors()).map(({ name, file }) => `${file} ${name}`), ['a.safetensors byte', 'a.safetensors f64', 'a.safetensors i64', 'a.safetensors both', 'b.safetensors both', 'b.safetensors none'])
    assert.deepEqual((await model.tensor('f64')).data, Float64Array.of(Math.PI, -0, NaN))
    assert.deepEqual((await model.tensor('i64')).data, BigInt64Array.of(-1n, 2n ** 62n))
    assert.deepEqual((await model.tensor('none')).data, new Float32Array(0))
    await assert.rejects(model.tensor('both'), { name: 'TensorNotFoundError', message: /a\.safetensors and in b\.safetensors/ })
    await assert.rejects(model.tensor('nothing\n'), { name: 'TensorNotFoundError', message: /\\u000a/ })
  })

  it('refuses what is not there', async () => {
    const directory = join(root, 'lying')
    await mkdir(directory)
    await writeFile(join(directory, 'x.safetensors'), 'this is no header')
    const { cid, socket } = await alone(directory)
    const model = await opening(cid, { socket })
    const file = model.file('x.safetensors')
    for (const [offset, length] of [[0, 18], [18, 0], [-1, 1], [0, -1], [0.5, 1], [0, NaN], [2 ** 53, 1], [1, 2 ** 53 - 1]] as const) {
      await assert.rejects(file.read(offset, length), { name: 'RangeError' })
    }
    assert.throws(() => model.file('../x'), { name: 'FileNotFoundError' })
    await assert.rejects(model.tensors(), { name: 'InvalidSafetensorsError', message: /x\.safetensors/ })
    await assert.rejects(open('no cid', { socket }), { name: 'InvalidCidError' })
    await assert.rejects(open(hashMetadata(Buffer.from('nobody has this')).toString(), { socket, providerTimeoutMs: 200 }), { name: 'NoProviderError' })
    await assert.rejects(open(cid, { socket: join(root, 'no.sock') }), { name: 'DaemonUnreachableError' })
    await assert.rejects(open(cid, { socket, signal: AbortSignal.abort() }), { name: 'AbortError' })
  })

  it('loads only what include asks for, and says so of the rest', async () => {
    const { cid, socket } = await pair()
    const model = await opening(cid, { socket, include: ['*.json', '*00001*'] })
    const left = model.file('model-00004-of-00004.safetensors')
    assert.deepEqual([left.wanted, left.complete], [false, false])
    await assert.rejects(left.read(0, 1), { name: 'UsageError', message: /include/ })
    const tensors = await model.tensors()
    assert.deepEqual(new Set(tensors.map(tensor => tensor.file)), new Set(['model-00001-of-00004.safetensors']))
    const { bytes } = await model.done
    assert.ok(bytes < MODEL_BYTES / 2)
    assert.deepEqual(await readFile(join(await model.path(), 'config.json')), await readFile(join(source, 'config.json')))
    await assert.rejects(left.read(0, 1), { name: 'UsageError', message: /include/ })
  })

  it('fetches on demand what is read and nothing else, where there is no room for all of it, until all is asked for', async () => {
    const { cid, socket, node } = await pair(source, { storage: { quota: 12 * MiB } })
    await assert.rejects(open(cid, { socket }).then(async model => { opened.push(model); await model.done }), { name: 'QuotaExceededError' })
    const model = await opening(cid, { socket, onDemand: true })
    await until('it rests', () => node.transfers()[0]?.resting === true)
    const held = (): number => node.models().find(held => held.cid === cid)?.presentBytes ?? 0
    assert.equal(held(), 0)
    const [first] = (await model.tensors()).filter(({ length }) => length < MiB)
    assert.ok(first !== undefined && (await model.tensors()).length > 20)
    const headers = held()
    assert.ok(headers < MODEL_BYTES / 4, `${headers} bytes for the headers of four files`)
    const tensor = await model.tensor(first.name)
    assert.deepEqual(Buffer.from(tensor.data.buffer), (await readFile(join(source, first.file))).subarray(first.offset, first.offset + first.length))
    await tick(300) // nothing else comes by itself
    assert.ok(held() <= headers + 4 * MiB, `${held() - headers} bytes for a tensor of ${first.length}`)
    assert.equal(node.transfers()[0]?.resting, true)
    assert.equal(model.file(first.file).complete, false)
    // All of it has no room here; what was read stays readable.
    await assert.rejects(model.path(), { name: 'QuotaExceededError' })
    assert.deepEqual((await model.tensor(first.name)).data, tensor.data)
    const large = await Promise.allSettled(model.files.map(async file => { await file.read(0, file.size) }))
    assert.ok(large.some(({ status }) => status === 'rejected') && held() <= 12 * MiB, 'more was fetched than the quota allows')
    await model.close()
    await until('nobody loads it', () => node.transfers().length === 0)
  })

  it('loads the rest of what was opened on demand when its directory is asked for', async () => {
    const { cid, socket, node } = await pair()
    const seen: LoadProgress[] = []
    const model = await opening(cid, { socket, onDemand: true, onProgress: progress => { seen.push(progress) } })
    const config = model.file('config.json')
    assert.deepEqual(Buffer.from(await config.read(0, config.size)), await readFile(join(source, 'config.json')))
    const directory = await model.path()
    for (const file of model.files) {
      assert.equal(file.complete, true)
      assert.deepEqual(await readFile(join(directory, file.path)), await readFile(join(source, file.path)))
    }
    assert.ok(seen.some(({ bytesDone, bytesTotal }) => bytesDone > 0 && bytesDone < bytesTotal))
    assert.equal(await model.path(), directory)
    assert.deepEqual([model.progress().phase, seen.at(-1)?.phase], ['done', 'done'])
    await model.close()
    await assert.rejects(model.done, { name: 'ModelClosedError' })
    await using again = await open(cid, { socket, onDemand: true })
    assert.equal(await again.path(), directory)
    assert.equal((await again.done).path, directory)
    assert.equal(node.transfers().length, 0)
  })

  it('holds what it has open, and no process that does nothing else', async () => {
    const other = join(root, 'other')
    await writeSyntheticModel(other, { bytes: MODEL_BYTES, seed: 6 })
    const { cid, socket, seeder, node } = await pair(source, { storage: { quota: 20 * MiB } })
    const next = (await seeder.add(other)).cid
    const model = await opening(cid, { socket })
    await model.done
    await assert.rejects(node.load(next), { name: 'QuotaExceededError' })
    const script = `import { open } from '${new URL('../../src/loader/index.ts', import.meta.url).href}'
      const model = await open('${cid}', { socket: '${socket}' })
      const onDemand = await open('${cid}', { socket: '${socket}', onDemand: true, include: ['config.json'] })
      console.log((await model.done).bytes > 0, (await onDemand.file('config.json').read(0, 1)).length)`
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module-typescript', '-e', script], { timeout: 10_000 })
    assert.equal(stdout, 'true 1\n')
    await model.close()
    await node.load(next)
    assert.deepEqual(node.models().map(held => held.cid), [next])
  })

  it('lets one caller give up without disturbing another, and close() ends them all', async () => {
    const { cid, socket } = await pair()
    const model = await opening(cid, { socket })
    const last = model.file('model-00004-of-00004.safetensors')
    const stop = new AbortController()
    const givenUp = last.read(0, last.size, { signal: stop.signal })
    const listing = model.tensors({ signal: stop.signal })
    const kept = last.read(0, 64 * KiB)
    stop.abort()
    await assert.rejects(givenUp, { name: 'AbortError' })
    await assert.rejects(listing, { name: 'AbortError' })
    assert.equal((await kept).length, 64 * KiB)
    assert.ok((await model.tensors()).length > 0)

    const pending = [model.file('model-00002-of-00004.safetensors').read(0, 8), model.path(), model.done]
    const settled = Promise.allSettled(pending)
    await model.close()
    await model.close()
    for (const outcome of (await settled).slice(1)) assert.equal(outcome.status === 'rejected' && (outcome.reason as Error).name, 'ModelClosedError')
    await assert.rejects(last.read(0, 1), { name: 'ModelClosedError' })
    await assert.rejects(model.tensors(), { name: 'ModelClosedError' })
    await assert.rejects(model.path(), { name: 'ModelClosedError' })
  })

  it('leaves no descriptor behind', async () => {
    const { cid, socket, node } = await alone(source)
    const held = async (): Promise<string[]> => {
      const links = await Promise.all((await readdir('/proc/self/fd')).map(async fd => await readlink(`/proc/self/fd/${fd}`).catch(() => '')))
      return links.filter(link => link.startsWith(join(cluster.directory(node), 'files'))).sort()
    }
    await (await open(cid, { socket })).close()
    const before = await held()
    for (let round = 0; round < 3; round++) {
      await using model = await open(cid, { socket })
      await model.tensor('lm_head.weight')
      await Promise.all(model.files.map(async file => await file.read(0, 1)))
      assert.ok((await held()).length > before.length)
    }
    assert.deepEqual(await held(), before)
  })

  it('reads files in place, and notices when their owner changes them', async () => {
    const directory = join(root, 'mine')
    await mkdir(directory)
    await writeFile(join(directory, 'a.bin'), 'first')
    await writeFile(join(directory, 'b.bin'), 'second')
    const { cid, socket } = await alone(directory, { inPlace: true })
    const model = await opening(cid, { socket })
    assert.equal(await model.path(), directory)
    assert.equal(Buffer.from(await model.file('a.bin').read(0, 5)).toString(), 'first')
    await writeFile(join(directory, 'a.bin'), 'FIRST')
    await assert.rejects(model.file('a.bin').read(0, 5), { name: 'SourceChangedError' })
    assert.equal(Buffer.from(await model.file('b.bin').read(0, 6)).toString(), 'second')
  })

  it('says that a model was removed, and never takes holes for bytes when it comes back', async () => {
    const { cid, socket, node } = await pair()
    const model = await opening(cid, { socket })
    await model.done
    const name = 'model-00004-of-00004.safetensors'
    await assert.rejects(node.remove(cid), { name: 'ModelInUseError' })
    // A daemon that was started again knows nothing of who had it open.
    await servers.pop()?.stop()
    await node.remove(cid)
    const server = createApiServer({ node, socketPath: socket })
    await server.start()
    servers.push(server)
    await assert.rejects(model.file(name).read(0, 8), { name: 'ModelNotFoundError' })
    // Somebody loads it again: the file is back, and empty at first.
    const again = await opening(cid, { socket })
    const content = await readFile(join(source, name))
    assert.deepEqual(Buffer.from(await model.file(name).read(content.length - 100, 100)), content.subarray(-100))
    await again.done
    assert.deepEqual(Buffer.from(await model.file(name).read(0, content.length)), content)
  })

  it('tells every waiter why the load ended when the last provider goes', async () => {
    const { cid, socket, seeder } = await pair(source, { transfer: { stallTimeoutMs: 500 } })
    const model = await opening(cid, { socket })
    const last = model.file('model-00004-of-00004.safetensors')
    const first = await last.read(0, 8)
    const waiting = last.read(0, last.size)
    waiting.catch(() => undefined)
    await cluster.kill(seeder)
    await assert.rejects(model.done, { name: 'NoProviderError' })
    await assert.rejects(waiting, { name: 'NoProviderError' })
    await assert.rejects(last.read(0, last.size), { name: 'NoProviderError' })
    await assert.rejects(model.path(), { name: 'NoProviderError' })
    assert.equal(first.length, 8)
  })

  it('says that the daemon went away', async () => {
    const { cid, socket } = await pair()
    const model = await opening(cid, { socket })
    const waiting = model.file('model-00004-of-00004.safetensors').read(0, 8 * MiB >> 1)
    waiting.catch(() => undefined)
    await servers[0]?.stop()
    await assert.rejects(model.done, { name: /NodeStoppedError|DaemonUnreachableError/ })
    await assert.rejects(waiting, { name: /NodeStoppedError|DaemonUnreachableError/ })
    await assert.rejects(open(cid, { socket }), { name: 'DaemonUnreachableError' })
  })

  it('says that a daemon without a disk has no files to read', async () => {
    const node = await createNode({ transport: 'memory', settings: { listen: [] } })
    try {
      const { cid } = await node.add(source)
      const model = await opening(cid, { socket: await serve(node) })
      await assert.rejects(model.file('config.json').read(0, 1), { name: 'UsageError', message: /memory/ })
      await assert.rejects(model.path(), { name: 'UsageError' })
    } finally {
      await node.stop()
    }
  })

  it('imports nothing heavy', async () => {
    const script = `
      import { registerHooks } from 'node:module'
      const urls = []
      registerHooks({ load (url, context, next) { urls.push(url); return next(url, context) } })
      await import(${JSON.stringify(new URL('../../src/loader/index.ts', import.meta.url).href)})
      console.log(JSON.stringify(urls))`
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script])
    const urls = JSON.parse(stdout) as string[]
    assert.ok(urls.length > 5)
    assert.deepEqual(urls.filter(url => url.includes('node_modules')), [])
  })
})
