import assert from 'node:assert/strict'
import { mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemRandom } from '../../../src/base/index.ts'
import { loadIdentity } from '../../../src/discovery/identity.ts'
import { formatSwarmKey, loadSwarmKey, parseSwarmKey } from '../../../src/discovery/swarm-key.ts'

describe('secret files', () => {
  let directory: string
  beforeEach(async () => { directory = await mkdtemp(join(tmpdir(), 'shoal-secret-')) })
  afterEach(async () => { await rm(directory, { recursive: true, force: true }) })

  it('are made once, for the owner only, with nothing left beside them', async () => {
    const key = await loadSwarmKey(directory, systemRandom)
    const identity = await loadIdentity(directory)
    assert.deepEqual(await loadSwarmKey(directory, systemRandom), key)
    assert.deepEqual((await loadIdentity(directory)).raw, identity.raw)
    for (const name of ['swarm.key', 'identity.key']) assert.equal((await stat(join(directory, name))).mode & 0o777, 0o600)
    assert.deepEqual((await readdir(directory)).sort(), ['identity.key', 'swarm.key'])
    assert.equal(await readFile(join(directory, 'swarm.key'), 'utf8'), formatSwarmKey(key))
  })

  it('are the same for all who start at once', async () => {
    const keys = await Promise.all(Array.from({ length: 20 }, async () => await loadSwarmKey(directory, systemRandom)))
    assert.equal(new Set(keys.map(key => Buffer.from(key).toString('hex'))).size, 1)
    assert.deepEqual(await readdir(directory), ['swarm.key'])
  })

  it('are not needed without a directory', async () => {
    assert.equal((await loadSwarmKey(undefined, systemRandom)).length, 32)
  })

  it('that are damaged are named and left alone', async () => {
    const good = formatSwarmKey(new Uint8Array(32).fill(1))
    for (const text of ['', 'hello', good.slice(0, -2), good + good, good.toUpperCase(), good.replace('/1\n', '/2\n'), `\n${good}`, good.replace('\n', '\r\n')]) {
      await writeFile(join(directory, 'swarm.key'), text)
      await assert.rejects(loadSwarmKey(directory, systemRandom), { name: 'ConfigError', message: /swarm\.key/ }, JSON.stringify(text))
      assert.equal(await readFile(join(directory, 'swarm.key'), 'utf8'), text)
    }
    assert.deepEqual(parseSwarmKey(good, 'x'), new Uint8Array(32).fill(1))
    await writeFile(join(directory, 'identity.key'), 'nonsense')
    await assert.rejects(loadIdentity(directory), { name: 'ConfigError', message: /identity\.key/ })
  })

  it('that cannot be made say so', async () => {
    await assert.rejects(loadSwarmKey(join(directory, 'missing'), systemRandom), { name: 'DiskError', message: /missing/ })
  })
})
