import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { at, bundle } from '../../scripts/lib/bundle.ts'
import { BIN, environment, type Finished } from './cli-process.ts'

const FILES = { 'config.json': 30, 'weights.bin': 5_000_000 }
const BYTES = FILES['config.json'] + FILES['weights.bin']

describe('docs/examples', function () {
  this.timeout(30_000)
  let root = ''

  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'shoal-examples-'))
    await mkdir(join(root, 'model'))
    for (const [name, bytes] of Object.entries(FILES)) await writeFile(join(root, 'model', name), Buffer.alloc(bytes, name))
    await mkdir(join(root, 'tmp'))
  })
  after(async () => { await rm(root, { recursive: true, force: true }) })

  it('two-nodes.ts, against the package that is installed, loads with one node what the other has added', async () => {
    const example = await beside('two-nodes.ts')
    const { code, stdout, stderr } = await run(example, [join(root, 'model')], { TMPDIR: join(root, 'tmp') })
    assert.equal(code, 0, stderr)
    const [added = '', blank, loaded = '', end] = stdout.split('\n')
    assert.equal(added.replace(/bafy[a-z2-7]+$/, 'CID'), `added 2 files, ${BYTES} bytes: CID`)
    assert.equal(blank, '')
    const cid = added.split(': ')[1] ?? ''
    assert.match(loaded, new RegExp(`^loaded into ${root}/tmp/shoal-example-\\w+/loader/models/${cid} in [0-9.]+ s from \\{ '?12D3KooW\\w+'?: ${BYTES} \\}$`))
    assert.equal(end, '')
    assert.match(stderr, new RegExp(`${BYTES} of ${BYTES} bytes$`))
    assert.deepEqual(await readdir(join(root, 'tmp')), [], 'it leaves nothing behind')
  })
})

/** Where `import ... from 'shoal'` finds the sources as they are now, built as in an installed package. Node strips no types below node_modules. */
async function beside (name: string): Promise<string> {
  const installed = join(dirname(BIN), '..', '..')
  await bundle({ index: at('src/node/index.ts') }, join(installed, 'dist/node'))
  const directory = at('dist/bundle/examples')
  await mkdir(directory, { recursive: true })
  await writeFile(join(directory, 'package.json'), '{"type":"module"}') // a package of its own: within the checkout's, `shoal` is the checkout
  await cp(at(`docs/examples/${name}`), join(directory, name))
  return join(directory, name)
}

async function run (program: string, args: string[], env: Record<string, string>): Promise<Finished> {
  const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: environment(env) })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => { stdout += text })
  child.stderr.setEncoding('utf8').on('data', (text: string) => { stderr += text })
  const [code] = await once(child, 'close')
  return { code: code as number | null, stdout, stderr }
}
