// `npm run build` writes the page that the service ships: src/timbrel/serving/page.
import license from "rollup-plugin-license";
import { defineConfig } from "vite";

const page = "../src/timbrel/serving/page";

export default defineConfig({
  base: "/",
  build: {
    outDir: page,
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0, // the page's policy lets no data: address in
    modulePreload: { polyfill: false },
    rollupOptions: {
      plugins: [
        license({
          thirdParty: { includeSelf: false, output: { file: `${page}/licences.txt` } },
        }),
      ],
    },
  },
  // `npm run dev` beside a running `timbrel serve`.
  server: {
    proxy: Object.fromEntries(
      ["/search", "/synthesize", "/instrument", "/locate", "/library", "/patches", "/docs"].map((path) => [
        path,
        "http://127.0.0.1:3000",
      ]),
    ),
  },
});
