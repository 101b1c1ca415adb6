import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { copyFile, mkdir, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { temporaryDirectory } from '../../support/files.ts'

const ROOT = join(import.meta.dirname, '../../..')

interface Found { summary: { violations: Array<{ from: string, rule: { name: string } }> } }

async function check (directory: string): Promise<Found> {
  const program = join(ROOT, 'node_modules/.bin/depcruise')
  return await new Promise((resolve, reject) => {
    execFile(process.execPath, [program, 'src', '--config', '.dependency-cruiser.cjs', '--output-type', 'json'], { cwd: directory }, (_error, stdout, stderr) => {
      try {
        resolve(JSON.parse(stdout) as Found)
      } catch (wrong) {
        reject(new Error(`it says ${stdout}${stderr}`, { cause: wrong }))
      }
    })
  })
}

/** The check that `npm run check:imports` makes, of sources in which something is wrong. */
describe('the check of imports', () => {
  it('sees arrows that run back, those of types alone as well, circles, and what rooms may not know', async () => {
    await using directory = await temporaryDirectory('imports')
    const files: Record<string, string> = {
      'src/base/index.ts': 'export const one: number = 1\n',
      'src/node/index.ts': "export { one } from '../base/index.ts'\nexport interface Node { name: string }\n",
      'src/base/back.ts': "import { one } from '../node/index.ts'\nexport const two: number = one + 1\n",
      'src/transfer/type.ts': "import type { Node } from '../node/index.ts'\nexport const nameOf = ({ name }: Node): string => name\n",
      'src/node/first.ts': "import { second } from './second.ts'\nexport const first = (): number => second()\n",
      'src/node/second.ts': "import { first } from './first.ts'\nexport const second = (): number => first()\n",
      'src/model/disk.ts': "import { readFileSync } from 'node:fs'\nexport const text = (): string => readFileSync('x', 'utf8')\n",
      'src/storage/network.ts': "import type { Libp2p } from '@libp2p/interface'\nexport const idOf = (node: Libp2p): string => node.peerId.toString()\n",
      'src/loader/heavy.ts': "import { schema } from '../node/schema.ts'\nexport const loaded: unknown = schema\n",
      'src/node/schema.ts': "import { z } from 'zod'\nexport const schema: unknown = z.string()\n"
    }
    for (const [path, text] of Object.entries(files)) {
      await mkdir(dirname(join(directory.path, path)), { recursive: true })
      await writeFile(join(directory.path, path), text)
    }
    for (const name of ['.dependency-cruiser.cjs', 'tsconfig.json', 'package.json']) await copyFile(join(ROOT, name), join(directory.path, name))
    await symlink(join(ROOT, 'node_modules'), join(directory.path, 'node_modules'))
    const { summary } = await check(directory.path)
    assert.deepEqual(summary.violations.map(({ from, rule }) => `${from} ${rule.name}`).sort(), [
      'src/base/back.ts base-imports-inward',
      'src/loader/heavy.ts loader-starts-in-milliseconds',
      'src/model/disk.ts model-is-pure',
      'src/node/first.ts no-circular',
      'src/storage/network.ts storage-knows-no-libp2p',
      'src/transfer/type.ts transfer-imports-inward'
    ])
  })
})
